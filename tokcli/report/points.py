"""From the rows of results.json to what is drawn: curves, the Pareto front, reference values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Row = Mapping[str, Any]
Measure = Literal["accuracy", "agreement"]
Axis = Literal["tokens", "bytes"]

REFERENCES = ("full", "blind", "guess")
"""Methods of results.json that are no methods: all tokens, no pictures, no model."""
BASELINES = ("uniform", "random", "pool2d", "downsample")
"""What any method has to beat at the same number of tokens."""
SAME_COUNT = 0.01
"""Two rows of a method whose token counts differ by less than this share are drawn once."""


@dataclass(frozen=True)
class Point:
    """One setting of one method."""

    method: str
    share: float
    """Of the source's tokens or bytes, on the horizontal axis."""
    accuracy: float
    low: float
    """Ends of the confidence interval, never on the wrong side of ``accuracy``; equal to it where there is none."""
    high: float
    matched: bool = False
    """Whether it repeats another setting's token count (``matches``) instead of having its own budget."""


def measure_of(rows: Iterable[Row]) -> Measure:
    """What ``accuracy`` means in these rows: right answers, or answers equal to those from all tokens."""
    return "agreement" if any(row.get("measure") == "agreement" for row in rows) else "accuracy"


def number(row: Row, name: str) -> float:
    """A value of the row, NaN where it is missing or null."""
    value = row.get(name)
    return math.nan if value is None else float(value)


def kept_share(row: Row, axis: Axis = "tokens") -> float:
    """Kept over source, of tokens or bytes; NaN where either is unknown or nothing was kept."""
    part, whole = (
        (number(row, "kept_tokens"), number(row, "source_tokens"))
        if axis == "tokens"
        else (number(row, "cache_bytes"), number(row, "source_bytes"))
    )
    return part / whole if part > 0 and whole > 0 else math.nan


def method_order(name: str) -> tuple[int, str]:
    """Sorts methods by name, and the baselines after them in their usual order."""
    return (BASELINES.index(name) + 1, name) if name in BASELINES else (0, name)


def settings(rows: Iterable[Row]) -> list[Row]:
    """Rows of methods over all kinds of questions: by method, most tokens first, equal token counts once.

    A baseline has rows for its own budgets and rows that match another method's token count (``matches``); of two at
    the same count the one with its own budget stays. Settings that could not be met have no count and are left out.
    """
    chosen: dict[str, list[Row]] = {}
    whole = [
        row
        for row in rows
        if row.get("kind") is None and row["method"] not in REFERENCES and not math.isnan(kept_share(row))
    ]
    for row in sorted(whole, key=lambda row: row.get("matches") is not None):
        share, same = kept_share(row), chosen.setdefault(row["method"], [])
        if not any(abs(share - kept_share(other)) <= SAME_COUNT * share for other in same):
            same.append(row)
    return [
        row
        for method in sorted(chosen, key=method_order)
        for row in sorted(chosen[method], key=lambda row: -kept_share(row))
    ]


def curves(rows: Iterable[Row], axis: Axis) -> dict[str, list[Point]]:
    """Points of each method from left to right; methods without a point that can be drawn are left out."""
    found: dict[str, list[Point]] = {}
    for row in settings(rows):
        point = as_point(row, axis)
        if point is not None:
            found.setdefault(point.method, []).append(point)
    return {method: sorted(points, key=lambda point: point.share) for method, points in found.items()}


def as_point(row: Row, axis: Axis) -> Point | None:
    """None where accuracy or share is unknown."""
    accuracy, share = number(row, "accuracy"), kept_share(row, axis)
    if math.isnan(accuracy) or math.isnan(share):
        return None
    low, high = (float(end) if end is not None else math.nan for end in row.get("ci") or (None, None))
    return Point(
        method=row["method"],
        share=share,
        accuracy=accuracy,
        low=accuracy if math.isnan(low) else min(low, accuracy),
        high=accuracy if math.isnan(high) else max(high, accuracy),
        matched=row.get("matches") is not None,
    )


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """Points that no other beats: none has at most their share and a higher accuracy. From left to right."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.share, -point.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def references(rows: Iterable[Row]) -> dict[str, float]:
    """Accuracy over all kinds of each reference that was measured, and ``chance`` where the rows tell it."""
    rows = [row for row in rows if row.get("kind") is None]
    found = {row["method"]: number(row, "accuracy") for row in rows if row["method"] in REFERENCES}
    chances = [number(row, "chance") for row in rows]
    found["chance"] = next((chance for chance in chances if not math.isnan(chance)), math.nan)
    return {name: found[name] for name in (*REFERENCES, "chance") if not math.isnan(found.get(name, math.nan))}
