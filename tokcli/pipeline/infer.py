"""Cache in, answers out: the language model alone, no decoding and no vision tower."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tokcli.cache import Cache, open_cache
from tokcli.errors import UsageError
from tokcli.models import Answer, LanguageModel, Request, load_language_model
from tokcli.pipeline.answers import AnswerFile, Row
from tokcli.pipeline.prompts import Question, load_prompts, questions
from tokcli.recipe import InferRecipe
from tokcli.types import EncodedItem


@dataclass(frozen=True)
class InferSummary:
    """What a run answered."""

    questions: int
    answered: int
    skipped: int
    """Answered in an earlier run."""
    missing: int
    """Prompts that name items which are not in the cache."""
    right: int | None
    """Answers equal to the prompts file's ``answer``, of all rows of this run that have one; None without any."""
    expected: int
    visual_tokens: int
    source_tokens: int
    """What ``visual_tokens`` would be with every token kept."""
    new_tokens: int
    seconds: float


def infer(
    recipe: InferRecipe,
    on_row: Callable[[Row], None] | None = None,
    on_begin: Callable[[int, int, list[str]], None] | None = None,
) -> InferSummary:
    """Answer the recipe's prompts from its cache.

    ``on_row`` sees each row of this run as soon as it is there; ``on_begin`` gets the number of questions, how many of
    them are answered already, and what is worth a warning. Raises ``UsageError``, ``ModelError``
    or ``CacheError`` before the first question for what cannot work.
    """
    cache = open_cache(recipe.cache)
    prompts = load_prompts(recipe)
    asked, missing = questions(prompts, _chosen(cache, recipe))
    if not asked:
        names = f"; not in it: {', '.join(missing[:3])}" if missing else ""
        raise UsageError(f"{recipe.cache}: no item to ask{names}. `tokcli inspect {recipe.cache}` lists its ids")
    identity = {"model": _model_name(cache, recipe), "cache_fingerprint": cache.manifest.digest}
    output = AnswerFile(Path(recipe.output), identity, recipe.overwrite, _hashes(cache)) if recipe.output else None
    pending = [question for question in asked if output is None or question.key not in output.done]
    if on_begin is not None:
        on_begin(len(asked), len(asked) - len(pending), _notes(missing, output))
    started = time.monotonic()
    rows: list[Row] = []
    try:
        if pending:
            model = load_language_model(identity["model"], dtype=recipe.dtype, device=recipe.device)
            model.check(cache.manifest.configuration["model"])
            for batch in _answered(model, cache, pending, recipe):
                new = [_row(question, item, answer, identity) for question, item, answer in batch]
                if output is not None:
                    output.append(new)
                for row in new:
                    rows.append({key: row[key] for key in ("visual_tokens", "source_tokens", "new_tokens", "right")})
                    if on_row is not None:
                        on_row(row)
        if output is not None:
            output.finish()
    finally:
        if output is not None:
            output.close()
    judged = [row["right"] for row in rows if row["right"] is not None]
    return InferSummary(
        questions=len(asked),
        answered=len(rows),
        skipped=len(asked) - len(pending),
        missing=len(missing),
        right=sum(judged) if judged else None,
        expected=len(judged),
        visual_tokens=sum(row["visual_tokens"] for row in rows),
        source_tokens=sum(row["source_tokens"] for row in rows),
        new_tokens=sum(row["new_tokens"] for row in rows),
        seconds=round(time.monotonic() - started, 3),
    )


def _model_name(cache: Cache, recipe: InferRecipe) -> str:
    return recipe.model or str(cache.manifest.configuration["model"]["model"])


def _hashes(cache: Cache) -> dict[str, str]:
    rows = cache.table(columns=["id", "source_blake3"]).to_pylist()
    return {row["id"]: row["source_blake3"] for row in rows}


def _notes(missing: list[str], output: AnswerFile | None) -> list[str]:
    notes = []
    if missing:
        names = ", ".join(repr(name) for name in missing[:3])
        notes.append(f"{len(missing)} prompts name items that are not in the cache: {names}")
    if output is not None and output.stale:
        notes.append(f"{output.stale} answers are about files that changed since; asking again")
    return notes


def _chosen(cache: Cache, recipe: InferRecipe) -> list[str]:
    ids = list(cache.ids())
    if recipe.ids:
        unknown = [item_id for item_id in recipe.ids if item_id not in set(ids)]
        if unknown:
            raise UsageError(f"{recipe.cache}: no item {unknown[0]!r}; `tokcli inspect {recipe.cache}` lists its ids")
        ids = [item_id for item_id in ids if item_id in set(recipe.ids)]
    return ids[: recipe.limit]


def _answered(
    model: LanguageModel, cache: Cache, pending: list[Question], recipe: InferRecipe
) -> Iterator[list[tuple[Question, EncodedItem, Answer]]]:
    for batch in _batches(pending, recipe.batch_size):
        items = {item_id: cache[item_id] for item_id in dict.fromkeys(question.item_id for question in batch)}
        requests = [Request([items[q.item_id]], q.prompt.text, recipe.system) for q in batch]
        answers = model.generate(requests, max_new_tokens=recipe.max_new_tokens, scheme=recipe.positions)
        yield [(question, items[question.item_id], answer) for question, answer in zip(batch, answers)]


def _batches(pending: Iterable[Question], size: int) -> Iterator[list[Question]]:
    rest = iter(pending)
    while batch := list(islice(rest, size)):
        yield batch


def _row(question: Question, item: EncodedItem, answer: Answer, identity: dict[str, str]) -> Row:
    extra: dict[str, Any] = {
        "expected" if key == "answer" else key: value for key, value in question.prompt.extra.items()
    }
    expected = extra.get("expected")
    return {
        "id": question.item_id,
        "prompt": question.prompt.text,
        "answer": answer.text,
        **extra,
        "right": None if expected is None else _normalised(answer.text) == _normalised(str(expected)),
        "visual_tokens": answer.visual_tokens,
        "source_tokens": item.source_tokens,
        "prompt_tokens": answer.prompt_tokens,
        "new_tokens": len(answer.token_ids),
        "seconds": round(answer.seconds, 6),
        "finish_reason": answer.finish_reason,
        "source_hash": item.source_hash,
        **identity,
    }


def _normalised(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".!")
