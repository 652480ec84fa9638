"""From outcomes to the rows of ``results.json``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tokcli.cache.measure import SizeMeter
from tokcli.evaluate.bootstrap import Floats, Means, bootstrap_means, pareto
from tokcli.evaluate.judging import Judged
from tokcli.evaluate.questions import Question
from tokcli.evaluate.runner import Outcome
from tokcli.evaluate.settings import BLIND, FULL, GUESS, Setting

Row = dict[str, Any]
REFERENCES = (FULL, BLIND, GUESS)


@dataclass(frozen=True)
class Results:
    """Everything that rows are made of."""

    settings: Sequence[Setting]
    table: Sequence[Sequence[Outcome]]
    """By setting, then by item."""
    questions: Mapping[str, Sequence[Question]]
    meters: Mapping[str, SizeMeter]
    """By source: how sizes add up there."""
    encode_seconds: Mapping[str, float | None] = field(default_factory=dict)
    """By source: decoding and encoding all items, whenever it was done."""


def make_rows(results: Results, *, measure: str, samples: int, seed: int) -> list[Row]:
    """A row for every setting over all questions (``kind`` None), then one for every setting and kind.

    ``measure`` is what ``accuracy`` means: "accuracy", or "agreement" with the answers from all tokens. The rows of a
    setting that some item could not meet have no accuracy but a ``reason``.
    """
    found = {question.kind for asked in results.questions.values() for question in asked}
    kinds = sorted(kind for kind in found if kind is not None)
    rows = []
    for kind in (None, *kinds):
        rows += _rows_of_kind(results, kind, measure, samples, seed)
    _mark_best([row for row in rows if row["kind"] is None])
    return rows


def _rows_of_kind(results: Results, kind: str | None, measure: str, samples: int, seed: int) -> list[Row]:
    chosen = {
        question.number: question
        for asked in results.questions.values()
        for question in asked
        if kind is None or question.kind == kind
    }
    per_item = [[q for q in results.questions[outcome.item] if q.number in chosen] for outcome in results.table[0]]
    counts = np.array([len(asked) for asked in per_item], dtype=np.float64)
    asked_about = [index for index, count in enumerate(counts) if count]
    reference = next((number for number, setting in enumerate(results.settings) if setting.label == FULL), None)

    def means(value: Callable[[Judged], float | None], which: Floats) -> Means:
        sums = np.array(
            [
                [_total(outcome, value, chosen) if not outcome.error else math.nan for outcome in outcomes]
                for outcomes in results.table
            ]
        )
        return bootstrap_means(sums, which, reference=reference, samples=samples, seed=seed, stratum=kind or "")

    scores = means(lambda judged: judged.score, counts)
    # Open questions have no length to divide by: they count with their plain score.
    by_character = means(lambda judged: judged.score if judged.per_character is None else judged.per_character, counts)
    divergence = means(lambda judged: judged.divergence, counts) if measure == "agreement" else None
    options = any(question.options for question in chosen.values())
    chances = [question.chance for question in chosen.values() if question.chance is not None]
    rows = []
    for number, setting in enumerate(results.settings):
        outcomes = [results.table[number][index] for index in asked_about]
        row: Row = {
            "method": setting.label,
            "keep": setting.keep,
            "kind": kind,
            "matches": setting.matches,
            "measure": measure,
            "accuracy": _value(scores.mean[number]),
            "ci": _pair(scores.interval[number]),
            "diff": None if scores.difference is None else _value(scores.difference[number]),
            "diff_ci": None if scores.difference_interval is None else _pair(scores.difference_interval[number]),
            "retained": None if reference is None else _ratio(scores.mean[number], scores.mean[reference]),
            "n": int(counts.sum()),
            "items": len(outcomes),
            "chance": float(np.mean(chances)) if len(chances) == len(chosen) else None,
            "reason": next((outcome.error for outcome in outcomes if outcome.error), None),
            "pareto": False,
        }
        if options and measure == "accuracy":
            row["accuracy_per_character"] = _value(by_character.mean[number])
        if divergence is not None:
            row |= {"kl": _value(divergence.mean[number]), "kl_ci": _pair(divergence.interval[number])}
        rows.append(row | _costs(results, setting, outcomes, whole=kind is None))
    return rows


def _total(outcome: Outcome, value: Callable[[Judged], float | None], chosen: Mapping[int, Question]) -> float:
    return sum((value(judged) or 0.0) for judged in outcome.judged if judged.number in chosen)


def _costs(results: Results, setting: Setting, outcomes: Sequence[Outcome], *, whole: bool) -> Row:
    """Tokens, bytes and seconds over the items of the row."""
    kept, source = (sum(getattr(outcome, name) for outcome in outcomes) for name in ("kept_tokens", "source_tokens"))
    source_bytes = sum(outcome.source_bytes for outcome in outcomes)
    sizes = [outcome.size for outcome in outcomes if outcome.size is not None]
    failed = any(outcome.error for outcome in outcomes)
    stored = None
    if setting.source is not None and not failed:
        stored = results.meters[setting.source].total(sizes)
    asked = setting.label != GUESS
    return {
        "kept_tokens": None if failed else kept,
        "source_tokens": source,
        "kept_share": None if failed else _ratio(kept, source),
        "cache_bytes": stored,
        "source_bytes": source_bytes,
        "bytes_share": None if stored is None else _ratio(stored, source_bytes),
        # Of one decode and encode of all items; it is not known what part of it the items of a kind took.
        "encode_seconds": results.encode_seconds.get(setting.source or "") if whole else None,
        "method_seconds": round(sum(outcome.method_seconds for outcome in outcomes), 6),
        "answer_seconds": round(sum(outcome.answer_seconds for outcome in outcomes), 6) if asked else 0.0,
    }


def _mark_best(rows: Sequence[Row]) -> None:
    """Mark the rows that no other beats with fewer tokens and more right answers; references stay out."""
    compared = [row for row in rows if row["method"] not in (BLIND, GUESS)]
    costs, gains = (
        np.array([math.nan if row[name] is None else row[name] for row in compared], dtype=np.float64)
        for name in ("kept_tokens", "accuracy")
    )
    for row, best in zip(compared, pareto(costs, gains)):
        row["pareto"] = bool(best)


def _value(number: float) -> float | None:
    return None if math.isnan(number) else round(float(number), 6)


def _pair(ends: Floats) -> list[float] | None:
    return None if np.isnan(ends).any() else [round(float(end), 6) for end in ends]


def _ratio(part: float, whole: float) -> float | None:
    return None if not whole or math.isnan(part) or math.isnan(whole) else round(float(part) / float(whole), 6)
