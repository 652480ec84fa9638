"""Accuracy against what is kept of the tokens or the bytes: a curve for each method."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tokcli.report.points import (
    Axis,
    Measure,
    Point,
    Row,
    as_point,
    curves,
    measure_of,
    method_order,
    pareto_front,
    references,
)
from tokcli.report.style import (
    INK,
    MUTED,
    MethodStyle,
    is_baseline,
    method_styles,
    new_figure,
    percent,
    plain_axes,
    titled,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_SCORES: dict[Measure, str] = {"accuracy": "Answers right", "agreement": "Answers as from all tokens"}
_COSTS: dict[Axis, str] = {"tokens": "visual tokens kept", "bytes": "size of the cache"}
_LABELS: dict[Axis, str] = {
    "tokens": "Visual tokens kept, % of the full count (log scale)",
    "bytes": "Bytes of the cache, % of the source files (log scale)",
}
_REFERENCE_LABELS = {
    "full": "all tokens",
    "blind": "without pictures",
    "guess": "most frequent answer",
    "chance": "chance",
}
_REFERENCE_DASHES: dict[str, Any] = {
    "full": "-",
    "blind": (0, (6, 2)),
    "guess": (0, (2, 1.5)),
    "chance": (0, (0.8, 1.6)),
}
_FRONT = "#f2c94c"


def draw_curves(rows: Sequence[Row], axis: Axis) -> Figure:
    """The picture; the caller has seen to it that there is a point to draw."""
    by_method = curves(rows, axis)
    figure = new_figure(height_inches=max(4.0, 2.2 + 0.19 * len(by_method)))
    axes = figure.add_subplot()
    plain_axes(axes)
    lines = _draw_references(axes, rows, axis)
    front = _draw_front(axes, pareto_front(point for points in by_method.values() for point in points))
    styles = method_styles(by_method)
    drawn = {name: _draw_method(axes, by_method[name], styles[name]) for name in sorted(by_method, key=method_order)}
    _scale(axes, rows, axis)
    score = _SCORES[measure_of(rows)]
    axes.set_ylabel(f"{score}, %", fontsize=9)
    titled(axes, f"{score} against {_COSTS[axis]}", _subtitle(rows, lines))
    groups = {
        "Methods": {name: line for name, line in drawn.items() if not is_baseline(name)},
        "Baselines": {name: line for name, line in drawn.items() if is_baseline(name)},
        "References": lines,
        "Pareto front": front,
    }
    _legend(figure, groups)
    return figure


def _draw_method(axes: Axes, points: Sequence[Point], style: MethodStyle) -> Line2D:
    """The curve with its intervals; the entry for the legend."""
    shares, accuracies = [point.share for point in points], [100 * point.accuracy for point in points]
    below = [100 * (point.accuracy - point.low) for point in points]
    above = [100 * (point.high - point.accuracy) for point in points]
    order = 4 if style.filled else 3
    axes.errorbar(
        shares, accuracies, (below, above), fmt="none", ecolor=style.colour, elinewidth=0.8, alpha=0.6, zorder=order
    )
    (line,) = axes.plot(
        shares,
        accuracies,
        color=style.colour,
        linestyle=style.dashes,
        linewidth=1.6 if style.filled else 1.1,
        marker=style.marker,
        markersize=style.size,
        markerfacecolor=style.colour if style.filled else "white",
        markeredgecolor="white" if style.filled else style.colour,
        markeredgewidth=0.5 if style.filled else 0.9,
        zorder=order,
    )
    return line


def _draw_front(axes: Axes, front: Sequence[Point]) -> dict[str, Line2D]:
    """A broad pale line under the curves, as steps: between two points only the left one can be had."""
    (line,) = axes.plot(
        [point.share for point in front],
        [100 * point.accuracy for point in front],
        drawstyle="steps-post",
        color=_FRONT,
        linewidth=1.2,
        marker="o",
        markersize=9.5,
        markeredgewidth=0,
        alpha=0.75,
        zorder=2,
    )
    return {"best at its cost": line}


def _draw_references(axes: Axes, rows: Sequence[Row], axis: Axis) -> dict[str, Line2D]:
    lines = {}
    for name, accuracy in references(rows).items():
        lines[f"{_REFERENCE_LABELS[name]}, {percent(accuracy)}"] = axes.axhline(
            100 * accuracy,
            color=INK if name == "full" else MUTED,
            linestyle=_REFERENCE_DASHES[name],
            linewidth=1.0,
            zorder=1.5,
        )
    full = next((row for row in rows if row["method"] == "full" and row.get("kind") is None), None)
    point = as_point(full, axis) if full is not None else None
    if point is not None:
        axes.plot([point.share], [100 * point.accuracy], "*", color=INK, markersize=8, markeredgewidth=0, zorder=5)
    return lines


def _scale(axes: Axes, rows: Sequence[Row], axis: Axis) -> None:
    """Halvings across; upwards as much as the values need, 0 to 100 at most, whole tens."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    points = [point for points in curves(rows, axis).values() for point in points]
    points += [point for row in rows if row["method"] == "full" and (point := as_point(row, axis)) is not None]
    octaves = [math.log2(point.share) for point in points]
    first, last = min(octaves), max(octaves)
    ticks = range(math.floor(first + 0.1), math.ceil(last - 0.1) + 1)
    axes.set_xscale("log", base=2)
    axes.set_xlim(2 ** (min(first, ticks[0]) - 0.2), 2 ** (max(last, ticks[-1]) + 0.2))
    every = 1 + (len(ticks) - 1) // 9
    axes.xaxis.set_major_locator(FixedLocator([2.0**tick for tick in ticks if tick % every == 0]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
    values = [*references(rows).values(), *(end for point in points for end in (point.low, point.high))]
    low, high = math.floor(10 * min(values) - 0.2) * 10, math.ceil(10 * max(values) + 0.05) * 10
    axes.set_ylim(max(0, low), min(100, high) + 1)
    axes.set_xlabel(_LABELS[axis], fontsize=9)
    if axis == "bytes" and axes.get_xlim()[1] > 1:
        axes.axvline(1, color=MUTED, linewidth=0.6, zorder=1)


def _subtitle(rows: Sequence[Row], lines: Iterable[str]) -> str:
    whole = [row for row in rows if row.get("kind") is None]
    counts = [int(row["n"]) for row in whole if row.get("n")]
    parts = [f"{max(counts):,} questions." if counts else ""]
    parts.append("Bars: 95% confidence intervals." if any(row.get("ci") for row in whole) else "")
    parts.append("Star: all tokens." if any(line.startswith(_REFERENCE_LABELS["full"]) for line in lines) else "")
    return " ".join(filter(None, parts))


class _Heading:
    """An entry of the legend that is only a title, at the left end of the line samples."""

    def __init__(self, text: str) -> None:
        self.text = text

    def legend_artist(self, legend: object, handle: object, fontsize: float, handlebox: Any) -> Artist:
        from matplotlib.text import Text

        artist = Text(0, 0, self.text, fontsize=fontsize, weight="bold")
        handlebox.add_artist(artist)
        return artist


def _legend(figure: Figure, groups: dict[str, dict[str, Line2D]]) -> None:
    """Outside on the right, by groups, each under its name."""
    handles: list[Any] = []
    labels: list[str] = []
    headings = {}
    for title, entries in groups.items():
        if entries:
            heading = object()
            headings[heading] = _Heading(title)
            handles += [heading, *entries.values()]
            labels += ["", *entries]
    figure.legend(
        handles,
        labels,
        handler_map=headings,
        loc="outside right upper",
        fontsize=8,
        frameon=False,
        handlelength=2.6,
        labelspacing=0.45,
    )
