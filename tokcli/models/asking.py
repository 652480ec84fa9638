"""Many prompts, options and continuations about one item, for little more than the cost of one.

All prompts of a call begin alike: with the system message and the item's visual tokens. That trunk is computed once per
call (:mod:`tokcli.models.branching`), what the prompts add to it is computed together, and so are the options or
continuations that follow a prompt. Nothing is approximate: each prompt gets what it would get in a call of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from tokcli.errors import ModelError, UsageError
from tokcli.models.branching import STEM, Row, Stem, Tokens, Trunk
from tokcli.models.choosing import Choice, Chooser
from tokcli.models.fitting import check_context, check_width
from tokcli.models.memory import free_cached, out_of_memory, too_long
from tokcli.models.positions import check_scheme
from tokcli.models.prompt import Request, lay_out, read_ids
from tokcli.models.replies import Answer, OptionScore

if TYPE_CHECKING:
    from tokcli.models.language_model import LanguageModel
    from tokcli.types import EncodedItem

ROW_TOKENS = {"cpu": 512, "cuda": 4096}
"""Tokens behind a trunk that are computed together: few calls against attention that is computed only to be masked."""

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
    """Prompts about one item: the trunk that they share, and each prompt's stem behind it."""

    def __init__(
        self,
        language: LanguageModel,
        requests: Sequence[Request],
        branches: Sequence[Sequence[Sequence[int]]],
        scheme: str,
        max_new_tokens: int = 0,
    ) -> None:
        """``requests`` have the same items; ``branches`` are what is to follow each of them."""
        family, config, tokenizer = language.family, language.model.config, language.tokenizer
        check_scheme(scheme, family.position_schemes)
        items = requests[0].items
        ids = read_ids(requests, family=family, config=config, tokenizer=tokenizer, template=language.template)
        first = lay_out(requests[0], ids[0], family=family, config=config, tokenizer=tokenizer, scheme=scheme)
        shared = _shared_length(ids)
        inputs: dict[str, Any] = {}
        length = len(first.ids) - (len(ids[0]) - shared)
        check_context(language, items, length - shared + max(len(own) for own in ids), max_new_tokens)
        if items:
            placeholders = {family.placeholder(config, item.kind) for item in items}
            if sum(token in placeholders for token in ids[0][:shared]) < len(items):
                raise ModelError(
                    "the chat template of the model puts the prompt before the item, so that prompts share nothing; "
                    "use generate"
                )
            check_width(language, items)
            inputs["mm_encoder_outputs"] = family.encoder_outputs(items, language.model.get_input_embeddings().weight)
        device = language.model.get_input_embeddings().weight.device
        inputs |= family.further_inputs(first.ids[None, :length].to(device), config)
        try:
            self.trunk = Trunk(language.model, first.ids[:length], first.positions[..., :length], **inputs)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise too_long(length, language.model.device) from error
        self.language = language
        self.requests = requests
        self.first = first
        # Text takes one position after the other in every scheme, so the first prompt says where all others stand.
        start = first.positions[..., length : length + 1]
        self.stems = [
            Stem(torch.tensor(own[shared:]), start + torch.arange(len(own) - shared), replies)
            for own, replies in zip(ids, branches)
        ]

    def prompt_ids(self, number: int) -> torch.Tensor:
        """All ids of a prompt, int64 (K,)."""
        return torch.cat([self.first.ids[: self.trunk.length], self.stems[number].ids])

    def run(self, work: Callable[[Row, Sequence[int]], list[Result]]) -> list[Result]:
        """``work(row, numbers)`` for batches of the stems; one that doesn't fit into memory is halved."""
        most = ROW_TOKENS.get(self.language.model.device.type, ROW_TOKENS["cpu"])
        room = min(self.language.max_batch_tokens - self.trunk.length, most)
        results: list[Result] = []
        for batch in _batches([stem.length for stem in self.stems], room):
            results += self._run(batch, work)
        return results

    def _run(self, batch: Sequence[int], work: Callable[[Row, Sequence[int]], list[Result]]) -> list[Result]:
        try:
            return work(self.trunk.row(), batch)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if len(batch) == 1:
                raise too_long(len(self.prompt_ids(batch[0])), self.language.model.device) from error
        # Outside of the except clause: the error's traceback would hold the tensors that have to go.
        free_cached(self.language.model.device)
        half = len(batch) // 2
        return self._run(batch[:half], work) + self._run(batch[half:], work)


def ask(
    language: LanguageModel, requests: Sequence[Request], *, max_new_tokens: int, scheme: str, choice: Choice
) -> list[Answer]:
    """See :meth:`tokcli.models.LanguageModel.ask`; the requests have the same items, system message and history."""
    if max_new_tokens < 1:
        raise UsageError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if _generates_its_own_way(language):
        return language.generate(requests, max_new_tokens=max_new_tokens, scheme=scheme, choice=choice)
    if not requests:
        return []
    started = time.perf_counter()
    with torch.inference_mode():
        asked = _Asked(language, requests, [()] * len(requests), scheme, max_new_tokens)
        replies = asked.run(lambda row, batch: _reply(asked, row, batch, max_new_tokens, choice))
    seconds = (time.perf_counter() - started) / len(requests)
    lengths = [asked.trunk.length + len(stem.ids) for stem in asked.stems]
    visual = asked.first.visual_tokens
    return [language.finish(reply, length, visual, seconds) for reply, length in zip(replies, lengths)]


def requests_for(item: EncodedItem | None, prompts: Sequence[str], system: str | None) -> list[Request]:
    """A request for each prompt."""
    items = [] if item is None else [item]
    return [Request(items, prompt, system) for prompt in prompts]


def greedy_is_likeliest(language: LanguageModel) -> bool:
    """Whether a greedy answer is the likeliest token at each step: no setting of the checkpoint changes the choice."""
    penalty = language.model.generation_config.repetition_penalty
    return penalty in (None, 1.0) and not _generates_its_own_way(language)


def _generates_its_own_way(language: LanguageModel) -> bool:
    return any(getattr(language.model.generation_config, name, None) for name in _GENERATE_ONLY)


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
        logits, places = row.grow([asked.stems[number] for number in batch])
        likely = torch.log_softmax(logits.float(), dim=-1)
        flat = _indices((place for prompt in places for option in prompt for place in option), logits)
        wanted = _indices((token for number in batch for option in ids[number] for token in option), logits)
        values = iter(likely[flat, wanted].tolist())
        hits = iter((likely.argmax(dim=-1)[flat] == wanted).tolist())
        return [[_score(len(option), values, hits) for option in ids[number]] for number in batch]

    with torch.inference_mode():
        asked = _Asked(language, requests_for(item, prompts, system), ids, scheme)
        return asked.run(score)


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
        logits, places = row.grow([asked.stems[number] for number in batch])
        return [torch.log_softmax(logits[only].float(), dim=-1).cpu() for (only,) in places]

    with torch.inference_mode():
        asked = _Asked(language, requests_for(item, prompts, system), [[ids] for ids in continuations], scheme)
        return asked.run(predict)


def _reply(asked: _Asked, row: Row, batch: Sequence[int], limit: int, choice: Choice) -> list[list[int]]:
    """The tokens that are chosen for each prompt in turn, up to and with an end token, at most ``limit``."""
    ends = asked.language.end_ids()
    chooser = Chooser(asked.language, choice, [asked.requests[number] for number in batch])
    replies: list[list[int]] = [[] for _ in batch]
    going = list(range(len(batch)))
    logits, _ = row.grow([asked.stems[number] for number in batch])
    for step in range(limit):
        scores = _penalised(asked, logits, [(batch[group], replies[group]) for group in going])
        for group, token in zip(going, chooser.choose(scores, going)):
            replies[group].append(token)
        going = [group for group in going if replies[group][-1] not in ends]
        if not going or step + 1 == limit:
            break
        ids = torch.tensor([replies[group][-1] for group in going])
        positions = torch.cat([asked.stems[batch[group]].after(step, 1) for group in going], dim=-1)
        tokens = Tokens(ids, positions, torch.tensor(going), torch.full_like(ids, STEM))
        logits = row.extend(tokens, torch.arange(len(going)))
    return replies


def _penalised(asked: _Asked, logits: torch.Tensor, replies: Sequence[tuple[int, list[int]]]) -> torch.Tensor:
    """Logits (R, V) as ``generate`` changes them before it chooses; of each row the prompt's number and the reply."""
    penalty = asked.language.model.generation_config.repetition_penalty
    if penalty in (None, 1.0):
        return logits
    from transformers import RepetitionPenaltyLogitsProcessor

    penalise = RepetitionPenaltyLogitsProcessor(penalty)
    rows = []
    for row, (number, reply) in zip(logits, replies):
        before = torch.cat([asked.prompt_ids(number), torch.tensor(reply, dtype=torch.long)])
        rows.append(penalise(before[None].to(row.device), row[None].float()))
    return torch.cat(rows)


def _shared_length(ids: Sequence[list[int]]) -> int:
    """How many ids all prompts begin with; the last one of a prompt doesn't count, so that each has something left."""
    # What the first and the last in sorted order share, all between them share.
    pairs = zip(min(ids)[:-1], max(ids))
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


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


def _indices(values: Iterable[int], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(list(values), dtype=torch.long, device=like.device)


def _score(count: int, values: Iterator[float], hits: Iterator[bool]) -> OptionScore:
    # Taken out before ``all`` looks at them: it stops at the first miss, and the next option's would be out of step.
    taken = list(islice(hits, count))
    return OptionScore(sum(islice(values, count)), count, all(taken))


def _check_length(name: str, given: Sequence[Any], prompts: Sequence[str]) -> None:
    if len(given) != len(prompts):
        raise UsageError(f"{len(prompts)} prompts need as many lists of {name}, got {len(given)}")
