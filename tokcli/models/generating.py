"""Requests of any kind in ragged batches: as large as memory allows, and halved where that was wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tokcli.errors import UsageError
from tokcli.models.choosing import Choice, Chooser
from tokcli.models.fitting import check_context, check_width
from tokcli.models.memory import free_cached, out_of_memory, too_long
from tokcli.models.prompt import Prompt, Request
from tokcli.models.quiet import quiet_transformers
from tokcli.models.replies import Answer

if TYPE_CHECKING:
    from tokcli.models.language_model import LanguageModel

Results = dict[int, Answer | UsageError]
"""By the number of the request: its answer, or why there is none."""


def generate(
    language: LanguageModel, requests: Sequence[Request], *, max_new_tokens: int, scheme: str, choice: Choice
) -> list[Answer]:
    """See :meth:`tokcli.models.LanguageModel.generate`."""
    results: Results = {}
    for new in each(
        language, requests, range(len(requests)), max_new_tokens=max_new_tokens, scheme=scheme, choice=choice
    ):
        for result in new.values():
            if isinstance(result, UsageError):
                raise result
        results.update(new)
    return [result for number in range(len(requests)) if isinstance(result := results[number], Answer)]


def each(
    language: LanguageModel,
    requests: Sequence[Request],
    numbers: Sequence[int],
    *,
    max_new_tokens: int,
    scheme: str,
    choice: Choice,
) -> Iterator[Results]:
    """Results of the requests with these numbers, batch by batch, similar lengths together.

    Raises:
        UsageError: Nothing can be answered that way, whatever the request: ``max_new_tokens`` is below 1, the schema is
            none.
    """
    if max_new_tokens < 1:
        raise UsageError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if choice.schema is not None:
        language.constraint(choice.schema)
    prompts: dict[int, Prompt] = {}
    failed: Results = {}
    for number in numbers:
        try:
            prompts[number] = _prompt(language, requests[number], max_new_tokens, scheme)
        except UsageError as error:
            failed[number] = error
    if failed:
        yield failed
    for batch in _batches({i: len(prompt.ids) + max_new_tokens for i, prompt in prompts.items()}, language):
        yield _answer(language, batch, requests, prompts, max_new_tokens, choice)


def _prompt(language: LanguageModel, request: Request, max_new_tokens: int, scheme: str) -> Prompt:
    prompt = language.prompt(request, scheme)
    check_width(language, request.items)
    check_context(language, request.items, len(prompt.ids), max_new_tokens)
    return prompt


def _batches(lengths: dict[int, int], language: LanguageModel) -> Iterator[list[int]]:
    """Numbers, the longest first, no batch beyond the model's ``max_batch_tokens`` unless it is one alone."""
    batch: list[int] = []
    for number in sorted(lengths, key=lambda number: -lengths[number]):
        # Asked anew for each batch: it is less after a batch that didn't fit.
        if batch and lengths[batch[0]] * (len(batch) + 1) > language.max_batch_tokens:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _answer(
    language: LanguageModel,
    batch: list[int],
    requests: Sequence[Request],
    prompts: dict[int, Prompt],
    max_new_tokens: int,
    choice: Choice,
) -> Results:
    started = time.perf_counter()
    chosen = [requests[i] for i in batch]
    longest = max(len(prompts[i].ids) for i in batch)
    try:
        rows = _run(language, chosen, [prompts[i] for i in batch], max_new_tokens, choice)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        rows = None
        if len(batch) == 1:
            return {batch[0]: too_long(longest, language.model.device)}
    if rows is None:
        # Outside of the except clause: the error's traceback would hold the tensors that have to go.
        free_cached(language.model.device)
        half = len(batch) // 2
        language.max_batch_tokens = min(language.max_batch_tokens, (longest + max_new_tokens) * (len(batch) - half))
        first = _answer(language, batch[:half], requests, prompts, max_new_tokens, choice)
        return first | _answer(language, batch[half:], requests, prompts, max_new_tokens, choice)
    seconds = (time.perf_counter() - started) / len(batch)
    return {
        i: language.finish(row, len(prompts[i].ids), prompts[i].visual_tokens, seconds) for i, row in zip(batch, rows)
    }


def _run(
    language: LanguageModel, requests: Sequence[Request], prompts: Sequence[Prompt], max_new_tokens: int, choice: Choice
) -> list[list[int]]:
    inputs = language.collate(requests, prompts)
    if not choice.likeliest:
        inputs["logits_processor"] = _processors(Chooser(language, choice, requests))
    with quiet_transformers(), torch.inference_mode():
        output = language.model.generate(
            **inputs, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=language.pad_id()
        )
    rows: list[list[int]] = output[:, inputs["input_ids"].shape[1] :].tolist()
    return rows


def _processors(chooser: Chooser) -> Any:
    """What makes ``generate`` take the tokens that the chooser chooses: behind its own processors."""
    from transformers import LogitsProcessor, LogitsProcessorList

    class Chosen(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            tokens = torch.tensor(chooser.choose(scores, range(len(scores))), device=scores.device)
            return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)

    return LogitsProcessorList([Chosen()])
