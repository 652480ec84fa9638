"""Many prompts, options and continuations about one item, for little more than the cost of one.

All prompts of a call begin alike: with the system message and the item's visual tokens. That trunk is computed once per
call (:mod:`tokcli.models.branching`), what the prompts add to it is computed together, and so are the options or
continuations that follow a prompt. Nothing is approximate: each prompt gets what it would get in a call of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from tokcli.errors import ModelError, UsageError
from tokcli.models.branching import STEM, Row, Stem, Tokens, Trunk, shared_length
from tokcli.models.prompt import Request
from tokcli.models.quiet import quiet_transformers
from tokcli.models.replies import Answer, OptionScore

if TYPE_CHECKING:
    from tokcli.models.language_model import LanguageModel
    from tokcli.types import EncodedItem

ROW_TOKENS = 1024
"""Tokens behind a trunk that are computed together. Masked attention between the prompts grows with its square."""

_GENERATE_ONLY = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "encoder_repetition_penalty",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "guidance_scale",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "sequence_bias",
    "stop_strings",
    "suppress_tokens",
    "watermarking_config",
)
"""Settings of ``generation_config.json`` that change greedy answers; transformers' ``generate`` follows them."""

Result = TypeVar("Result")


class _Asked:
    """Prompts about one item, behind their trunk."""

    def __init__(
        self,
        language: LanguageModel,
        item: EncodedItem | None,
        prompts: Sequence[str],
        scheme: str,
        system: str | None,
    ) -> None:
        items = [] if item is None else [item]
        self.language = language
        self.prompts = [language.prompt(Request(items, prompt, system), scheme) for prompt in prompts]
        length = shared_length([(prompt.ids, prompt.positions) for prompt in self.prompts])
        inputs: dict[str, Any] = {}
        first = self.prompts[0]
        if item is not None:
            weight = language.model.get_input_embeddings().weight
            language.check_width(items, weight.shape[1])
            if bool((first.ids[length:] == language.family.placeholder(language.model.config, item.kind)).any()):
                raise ModelError(
                    "the chat template of the model puts the question before the item, so questions share nothing; "
                    "use generate"
                )
            inputs["mm_encoder_outputs"] = language.family.encoder_outputs(items, weight)
        try:
            self.trunk = Trunk(language.model, first.ids[:length], first.positions[..., :length], **inputs)
        except torch.OutOfMemoryError as error:
            raise _too_long(length, language) from error

    def stem(self, number: int, branches: Sequence[Sequence[int]] = ()) -> Stem:
        prompt, start = self.prompts[number], self.trunk.length
        return Stem(prompt.ids[start:], prompt.positions[..., start:], branches)

    def run(self, stems: Sequence[Stem], work: Callable[[Row, Sequence[int]], list[Result]]) -> list[Result]:
        """``work(row, numbers)`` for batches of the stems; one that doesn't fit into memory is halved."""
        room = min(self.language.max_batch_tokens - self.trunk.length, ROW_TOKENS)
        results: list[Result] = []
        for batch in _batches([stem.length for stem in stems], room):
            results += self._run(batch, work)
        return results

    def _run(self, batch: Sequence[int], work: Callable[[Row, Sequence[int]], list[Result]]) -> list[Result]:
        try:
            return work(self.trunk.row(), batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise _too_long(len(self.prompts[batch[0]].ids), self.language) from error
        # Outside of the except clause: the error's traceback would hold the tensors that have to go.
        torch.cuda.empty_cache()
        half = len(batch) // 2
        return self._run(batch[:half], work) + self._run(batch[half:], work)


def ask(
    language: LanguageModel,
    item: EncodedItem | None,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    scheme: str,
    system: str | None,
) -> list[Answer]:
    """See :meth:`tokcli.models.LanguageModel.ask`."""
    if max_new_tokens < 1:
        raise UsageError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if any(getattr(language.model.generation_config, name, None) for name in _GENERATE_ONLY):
        requests = [Request([] if item is None else [item], prompt, system) for prompt in prompts]
        return language.generate(requests, max_new_tokens=max_new_tokens, scheme=scheme)
    if not prompts:
        return []
    started = time.perf_counter()
    with quiet_transformers(), torch.inference_mode():
        asked = _Asked(language, item, prompts, scheme, system)
        stems = [asked.stem(number) for number in range(len(prompts))]
        replies = asked.run(stems, lambda row, batch: _greedy(asked, stems, row, batch, max_new_tokens))
    seconds = (time.perf_counter() - started) / len(prompts)
    return [language.finish(reply, prompt, seconds) for reply, prompt in zip(replies, asked.prompts)]


def log_likelihoods(
    language: LanguageModel,
    item: EncodedItem | None,
    prompts: Sequence[str],
    options: Sequence[Sequence[str]],
    *,
    scheme: str,
    system: str | None,
) -> list[list[OptionScore]]:
    """See :meth:`tokcli.models.LanguageModel.log_likelihoods`."""
    _check_length("options", options, prompts)
    if not prompts:
        return []
    ids = [[_option_ids(language, option) for option in row] for row in options]

    def score(row: Row, batch: Sequence[int]) -> list[list[OptionScore]]:
        logits, places = row.grow([stems[number] for number in batch])
        likely = torch.log_softmax(logits.float(), dim=-1)
        flat = torch.tensor([place for prompt in places for option in prompt for place in option], device=logits.device)
        targets = [token for number in batch for option in ids[number] for token in option]
        wanted = torch.tensor(targets, device=logits.device)
        values = iter(likely[flat, wanted].tolist())
        hits = iter((likely.argmax(dim=-1)[flat] == wanted).tolist())
        return [[_score(len(option), values, hits) for option in ids[number]] for number in batch]

    with quiet_transformers(), torch.inference_mode():
        asked = _Asked(language, item, prompts, scheme, system)
        stems = [asked.stem(number, row) for number, row in enumerate(ids)]
        return asked.run(stems, score)


def distributions(
    language: LanguageModel,
    item: EncodedItem | None,
    prompts: Sequence[str],
    continuations: Sequence[Sequence[int]],
    *,
    scheme: str,
    system: str | None,
) -> list[torch.Tensor]:
    """See :meth:`tokcli.models.LanguageModel.distributions`."""
    _check_length("continuations", continuations, prompts)
    if not prompts:
        return []

    def predict(row: Row, batch: Sequence[int]) -> list[torch.Tensor]:
        logits, places = row.grow([stems[number] for number in batch])
        return [torch.log_softmax(logits[only].float(), dim=-1).cpu() for (only,) in places]

    with quiet_transformers(), torch.inference_mode():
        asked = _Asked(language, item, prompts, scheme, system)
        stems = [asked.stem(number, [ids]) for number, ids in enumerate(continuations)]
        return asked.run(stems, predict)


def _greedy(asked: _Asked, stems: Sequence[Stem], row: Row, batch: Sequence[int], limit: int) -> list[list[int]]:
    """Each prompt's most likely tokens in turn, up to and with an end token, at most ``limit``."""
    ends = asked.language.end_ids()
    replies: list[list[int]] = [[] for _ in batch]
    going = list(range(len(batch)))
    logits, _ = row.grow([stems[number] for number in batch])
    for step in range(limit):
        before = [asked.prompts[batch[group]].ids for group in going]
        for group, token in zip(going, _choose(asked.language, logits, before, [replies[group] for group in going])):
            replies[group].append(token)
        going = [group for group in going if replies[group][-1] not in ends]
        if not going or step + 1 == limit:
            break
        ids = torch.tensor([replies[group][-1] for group in going])
        positions = torch.cat([stems[batch[group]].after(step, 1) for group in going], dim=-1)
        tokens = Tokens(ids, positions, torch.tensor(going), torch.full_like(ids, STEM))
        logits = row.extend(tokens, torch.arange(len(going)))
    return replies


def _choose(
    language: LanguageModel, logits: torch.Tensor, prompts: Sequence[torch.Tensor], replies: Sequence[list[int]]
) -> list[int]:
    """The next token of each prompt that goes on, as ``generate`` would choose it from logits (R, V)."""
    penalty = language.model.generation_config.repetition_penalty
    if penalty not in (None, 1.0):
        from transformers import RepetitionPenaltyLogitsProcessor

        penalise = RepetitionPenaltyLogitsProcessor(penalty)
        before = [torch.cat([ids, ids.new_tensor(reply)]).to(logits.device) for ids, reply in zip(prompts, replies)]
        logits = torch.cat([penalise(ids[None], row[None].float()) for ids, row in zip(before, logits)])
    return logits.argmax(dim=-1).tolist()


def _batches(lengths: Sequence[int], room: int) -> Iterator[list[int]]:
    """Numbers in order, together at most ``room`` tokens unless it is one alone."""
    batch: list[int] = []
    used = 0
    for number, length in enumerate(lengths):
        if batch and used + length > room:
            yield batch
            batch, used = [], 0
        batch.append(number)
        used += length
    yield batch


def _option_ids(language: LanguageModel, option: str) -> list[int]:
    ids: list[int] = language.tokenizer(option, add_special_tokens=False).input_ids
    if not ids:
        raise UsageError(f"the option {option!r} has no tokens, so every answer begins with it; leave it out")
    return ids


def _score(count: int, values: Iterator[float], hits: Iterator[bool]) -> OptionScore:
    # Taken out before ``all`` looks at them: it stops at the first miss, and the next option's would be out of step.
    taken = list(islice(hits, count))
    return OptionScore(sum(islice(values, count)), count, all(taken))


def _check_length(name: str, given: Sequence[Any], prompts: Sequence[str]) -> None:
    if len(given) != len(prompts):
        raise UsageError(f"{len(prompts)} prompts need as many lists of {name}, got {len(given)}")


def _too_long(length: int, language: LanguageModel) -> ModelError:
    return ModelError(
        f"a prompt of {length} tokens doesn't fit into the memory of {language.model.device}; keep fewer tokens"
    )
