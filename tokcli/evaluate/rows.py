"""From outcomes to the rows of ``results.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tokcli.cache.measure import SizeMeter
from tokcli.evaluate.bootstrap import Floats, Means, bootstrap_means, pareto
from tokcli.evaluate.judging import Judged
from tokcli.evaluate.questions import Question
from tokcli.evaluate.runner import Outcome
from tokcli.evaluate.settings import BLIND, FULL, GUESS, Setting

Row = dict[str, Any]


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
    scores = _Scores.of(results)
    kinds = sorted({kind for kind in scores.kinds if kind is not None})
    rows = []
    for kind in (None, *kinds):
        rows += _rows_of_kind(results, scores, kind, measure, samples, seed)
    _mark_best([row for row in rows if row["kind"] is None])
    return rows


@dataclass(frozen=True)
class _Scores:
    """How every setting did on every question, as arrays: S settings, Q questions, I items."""

    kinds: list[str | None]
    chances: Floats
    """float64 (Q,), NaN where it is not known."""
    options: npt.NDArray[np.bool_]
    """bool (Q,): which questions have options."""
    item: npt.NDArray[np.int64]
    """int64 (Q,): the item that each is about, in the order of the outcomes."""
    items: int
    score: Floats
    """float64 (S, Q), NaN for settings that could not be met on an item."""
    per_character: Floats
    """float64 (S, Q); open questions have no length to divide by and count with their plain score."""
    divergence: Floats
    """float64 (S, Q); NaN where it was not asked for."""

    @classmethod
    def of(cls, results: Results) -> _Scores:
        outcomes = results.table[0]
        asked = [(n, question) for n, outcome in enumerate(outcomes) for question in results.questions[outcome.item]]
        values = np.full((3, len(results.settings), len(asked)), np.nan)
        for setting, row in enumerate(results.table):
            judged = [one for outcome in row for one in _judged(outcome, results.questions[outcome.item])]
            values[0, setting] = [math.nan if one is None else one.score for one in judged]
            values[1, setting] = [math.nan if one is None else _or(one.per_character, one.score) for one in judged]
            values[2, setting] = [math.nan if one is None else _or(one.divergence, math.nan) for one in judged]
        return cls(
            kinds=[question.kind for _, question in asked],
            chances=np.array([_or(question.chance, math.nan) for _, question in asked], dtype=np.float64),
            options=np.array([bool(question.options) for _, question in asked], dtype=np.bool_),
            item=np.array([n for n, _ in asked], dtype=np.int64),
            items=len(outcomes),
            score=values[0],
            per_character=values[1],
            divergence=values[2],
        )

    def by_item(self, values: Floats, chosen: npt.NDArray[np.bool_]) -> Floats:
        """float64 (S, I): values (S, Q) of the chosen questions, added up by item."""
        item = self.item[chosen]
        return np.stack([np.bincount(item, weights=row[chosen], minlength=self.items) for row in values])


def _judged(outcome: Outcome, questions: Sequence[Question]) -> Sequence[Judged | None]:
    return outcome.judged or [None] * len(questions)


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _rows_of_kind(
    results: Results, scores: _Scores, kind: str | None, measure: str, samples: int, seed: int
) -> list[Row]:
    chosen = np.array([kind is None or found == kind for found in scores.kinds], dtype=np.bool_)
    counts = np.bincount(scores.item[chosen], minlength=scores.items).astype(np.float64)
    reference = next((number for number, setting in enumerate(results.settings) if setting.label == FULL), None)

    def means(values: Floats) -> Means:
        sums = scores.by_item(values, chosen)
        return bootstrap_means(sums, counts, reference=reference, samples=samples, seed=seed, stratum=kind or "")

    plain = means(scores.score)
    extra: dict[str, Means] = {}
    if scores.options[chosen].any() and measure == "accuracy":
        extra["accuracy_per_character"] = means(scores.per_character)
    if measure == "agreement":
        extra["kl"] = means(scores.divergence)
    chance = _value(float(scores.chances[chosen].mean()))
    rows = []
    for number, setting in enumerate(results.settings):
        outcomes = [results.table[number][index] for index in np.flatnonzero(counts).tolist()]
        row: Row = {
            "method": setting.label,
            "keep": setting.keep,
            "kind": kind,
            "matches": setting.matches,
            "measure": measure,
            "accuracy": _value(plain.mean[number]),
            "ci": _pair(plain.interval[number]),
            "diff": None if plain.difference is None else _value(plain.difference[number]),
            "diff_ci": None if plain.difference_interval is None else _pair(plain.difference_interval[number]),
            "retained": None if reference is None else _ratio(plain.mean[number], plain.mean[reference]),
            "n": int(counts.sum()),
            "items": len(outcomes),
            "chance": chance,
            "reason": next((outcome.error for outcome in outcomes if outcome.error), None),
            "pareto": False,
        }
        for name, of in extra.items():
            row |= {name: _value(of.mean[number])}
        if "kl" in extra:
            row["kl_ci"] = _pair(extra["kl"].interval[number])
        rows.append(row | _costs(results, setting, outcomes, whole=kind is None))
    return rows


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
