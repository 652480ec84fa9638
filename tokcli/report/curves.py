"""Accuracy against what is kept of the tokens or the bytes: a curve for each method."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
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
    by_method, score = curves(rows, axis), _SCORES[measure_of(rows)]
    lines = {name: f"{_REFERENCE_LABELS[name]}, {percent(value)}" for name, value in references(rows).items()}
    figure = new_figure(
        max(4.0, 2.4 + 0.19 * len(by_method)), f"{score} against {_COSTS[axis]}", _subtitle(rows, lines)
    )
    axes = figure.add_subplot()
    plain_axes(axes)
    axes.set_ylabel(f"{score}, %", fontsize=9)
    drawn_lines = {label: _draw_reference(axes, rows, axis, name) for name, label in lines.items()}
    front = _draw_front(axes, pareto_front(point for points in by_method.values() for point in points))
    styles, hidden = method_styles(by_method), _hidden(by_method)
    drawn = {
        name: _draw_method(axes, by_method[name], styles[name], hidden[name])
        for name in sorted(by_method, key=method_order, reverse=True)
    }
    _scale(axes, rows, axis)
    methods = [name for name in reversed(drawn) if not is_baseline(name)]
    baselines = {name: drawn[name] for name in reversed(drawn) if is_baseline(name)}
    if any(point.matched for points in by_method.values() for point in points):
        baselines["alone: a method's token count"] = _sample(marker="o", color=MUTED, markerfacecolor="white")
    _legend(
        figure,
        {
            "Methods": {name: drawn[name] for name in methods},
            "Baselines": baselines,
            "References": drawn_lines,
            "Pareto front": front,
        },
    )
    return figure


def _hidden(by_method: Mapping[str, Sequence[Point]]) -> dict[str, int]:
    """How many of the methods that are drawn later would cover half of a method's points or more."""
    order = sorted(by_method, key=method_order, reverse=True)

    def covers(above: str, below: str) -> bool:
        same = sum(
            any(
                abs(p.share - q.share) <= 0.01 * p.share and abs(p.accuracy - q.accuracy) < 0.004
                for q in by_method[above]
            )
            for p in by_method[below]
        )
        return 2 * same >= len(by_method[below])

    return {name: sum(covers(later, name) for later in order[place + 1 :]) for place, name in enumerate(order)}


def _draw_method(axes: Axes, points: Sequence[Point], style: MethodStyle, hidden: int) -> Line2D:
    """The curve through a method's own budgets, markers at all its points, the intervals; the entry for the legend.

    What ``hidden`` later curves would cover is drawn that much broader, so that it shows under them.
    """
    broader = min(hidden, 3)
    order = 4 if style.filled else 3
    axes.errorbar(
        [point.share for point in points],
        [100 * point.accuracy for point in points],
        (
            [100 * (point.accuracy - point.low) for point in points],
            [100 * (point.high - point.accuracy) for point in points],
        ),
        fmt="none",
        ecolor=style.colour,
        elinewidth=0.8 + 0.8 * broader,
        alpha=0.6,
        zorder=order,
    )
    look: dict[str, Any] = {
        "color": style.colour,
        "marker": style.marker,
        "markersize": style.size + 2.4 * broader,
        "markerfacecolor": style.colour if style.filled else "white",
        "markeredgecolor": "white" if style.filled else style.colour,
        "markeredgewidth": 0.5 if style.filled else 0.9,
        "linewidth": (1.6 if style.filled else 1.1) + 1.8 * broader,
        "zorder": order,
    }
    for matched, dashes in ((True, "none"), (False, style.dashes)):
        chosen = [point for point in points if point.matched == matched]
        shares, heights = [point.share for point in chosen], [100 * point.accuracy for point in chosen]
        axes.plot(shares, heights, linestyle=dashes, **look)
    return _sample(linestyle=style.dashes, **look)


def _sample(**look: Any) -> Line2D:
    """A piece of a curve for the legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **{"linestyle": "none", "markersize": 4, "markeredgewidth": 0.9} | look)


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


def _draw_reference(axes: Axes, rows: Sequence[Row], axis: Axis, name: str) -> Line2D:
    """A line across at its height; for all tokens a star too, where the cost is known."""
    line = axes.axhline(
        100 * references(rows)[name],
        color=INK if name == "full" else MUTED,
        linestyle=_REFERENCE_DASHES[name],
        linewidth=1.0,
        zorder=1.5,
    )
    for row in rows:
        if name == "full" == row["method"] and row.get("kind") is None and (point := as_point(row, axis)) is not None:
            axes.plot([point.share], [100 * point.accuracy], "*", color=INK, markersize=8, markeredgewidth=0, zorder=5)
    return line


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


def _subtitle(rows: Sequence[Row], lines: Container[str]) -> str:
    whole = [row for row in rows if row.get("kind") is None]
    counts = [int(row["n"]) for row in whole if row.get("n")]
    parts = [f"{max(counts):,} questions." if counts else ""]
    parts.append("Bars: 95% confidence intervals." if any(row.get("ci") for row in whole) else "")
    parts.append("Star: all tokens." if "full" in lines else "")
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
