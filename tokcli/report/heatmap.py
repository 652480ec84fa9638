"""Which kinds of questions a setting loses: settings against kinds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from tokcli.report.points import Measure, Row, kept_share, measure_of, number, settings
from tokcli.report.style import FAINT, HEAD_INCHES, INK, MARGIN_INCHES, MUTED, WIDTH_INCHES, new_figure, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WORST_SHOWN = 0.5
"""Everything below this share of the full accuracy has the darkest colour."""
TITLES: dict[Measure, str] = {
    "accuracy": "Accuracy kept, % of the accuracy with all tokens, by kind of question",
    "agreement": "Answers as from all tokens, %, by kind of question",
}
SUBTITLE = "Rows: method and share of visual tokens kept. Darker: more answers lost."
ROW_INCHES, FOOT_INCHES = 0.18, 0.5
LETTER_INCHES = 0.066
"""A letter of the kinds' names, on average."""
FULL_ROW = -1.1
"""Where the row of all tokens stands, in rows of the map."""


@dataclass(frozen=True)
class Retained:
    """Accuracy of every setting over that of all tokens."""

    settings: list[tuple[str, float]]
    """Method and share of tokens kept, a row each."""
    kinds: list[str | None]
    """A column each; None, all kinds together, is the first."""
    full: list[float]
    """Accuracy with all tokens of each column."""
    values: npt.NDArray[np.float64]
    """float64 (settings, kinds); NaN where something was not measured, or all tokens answer nothing right."""
    measure: Measure


def retained(rows: Sequence[Row]) -> Retained | None:
    """None where no kind of question has rows of all tokens and of a method."""
    full = {row.get("kind"): number(row, "accuracy") for row in rows if row["method"] == "full"}
    chosen = _own_budgets(settings(rows))
    kinds = sorted({kind for kind in full if kind is not None and not math.isnan(full[kind])})
    if not chosen or not kinds:
        return None
    columns: list[str | None] = [None, *kinds]
    accuracy = {(_setting(row), row.get("kind")): number(row, "accuracy") for row in rows}
    values = np.array(
        [[_ratio(accuracy.get((_setting(row), kind)), full.get(kind)) for kind in columns] for row in chosen]
    )
    return Retained(
        settings=[(row["method"], kept_share(row)) for row in chosen],
        kinds=columns,
        full=[full.get(kind, math.nan) for kind in columns],
        values=values,
        measure=measure_of(rows),
    )


def draw_heatmap(table: Retained) -> Figure:
    """Placed by hand, in inches: a cell keeps its size whatever the number of settings and kinds."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    rows, columns = table.values.shape
    names = [kind or "all" for kind in table.kinds]
    left = MARGIN_INCHES + 0.5 + max(0.75, *(0.082 * len(method) for method, _ in table.settings))
    longest = max(map(len, names)) * LETTER_INCHES
    cell = min(0.62, (WIDTH_INCHES - left - 0.2) / columns)
    slanted = longest > cell
    if slanted:
        cell = min(0.62, (WIDTH_INCHES - left - 0.1 - 0.8 * len(names[-1]) * LETTER_INCHES) / (columns - 0.5))
    head = HEAD_INCHES + 0.45 + (0.68 * longest if slanted else 0.0)
    height = head + ROW_INCHES * rows + FOOT_INCHES
    figure = new_figure(height, TITLES[table.measure], SUBTITLE, by_hand=True)

    def place(x: float, y: float, width: float, tall: float) -> Axes:
        return figure.add_axes((x / WIDTH_INCHES, y / height, width / WIDTH_INCHES, tall / height))

    axes = place(left, FOOT_INCHES, cell * columns, ROW_INCHES * rows)
    # The dark end of the map is cut off, so that black or white text is readable on every colour.
    colours = LinearSegmentedColormap.from_list("lost", colormaps["Blues_r"](np.linspace(0.12, 1, 256)))
    colours = colours.with_extremes(bad=FAINT)
    values = np.ma.masked_invalid(table.values)
    image = axes.imshow(values, cmap=colours, vmin=WORST_SHOWN, vmax=1, aspect="auto", interpolation="none")
    axes.set(xticks=[], yticks=[], xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    axes.axvline(0.5, color="white", linewidth=3)
    for row, column in np.ndindex(rows, columns):
        _write(axes, row, column, float(table.values[row, column]))
    _label_kinds(axes, names, table.full, slanted)
    _label_settings(axes, table, left, cell)
    scale = place(left, 0.28, 1.8, 0.08)
    bar = figure.colorbar(image, cax=scale, orientation="horizontal", extend="min")
    bar.set_ticks([0.5, 0.6, 0.7, 0.8, 0.9, 1.0], labels=["50%", "60", "70", "80", "90", "≥ 100"])
    bar.outline.set_visible(False)
    scale.tick_params(labelsize=7.5, length=2, color=MUTED)
    return figure


def _write(axes: Axes, row: float, column: int, value: float, digits: int = 0) -> None:
    """A percentage at a cell."""
    axes.text(
        column,
        row,
        "–" if math.isnan(value) else f"{100 * value:.{digits}f}",
        ha="center",
        va="center_baseline",
        fontsize=7.5,
        color="white" if row >= 0 and value < 0.72 else INK,
        weight="bold" if column == 0 else "normal",
    )


def _label_kinds(axes: Axes, names: Sequence[str], full: Sequence[float], slanted: bool) -> None:
    """Above the map: the kinds, and a row without colour with what all tokens reach."""
    for column, (name, accuracy) in enumerate(zip(names, full)):
        _write(axes, FULL_ROW, column, accuracy, digits=1)
        axes.annotate(
            name,
            (column, FULL_ROW - 0.5),
            (0, 2),
            textcoords="offset points",
            ha="left" if slanted else "center",
            va="bottom",
            rotation=40 if slanted else 0,
            rotation_mode="anchor",
            fontsize=8,
            weight="bold" if column == 0 else "normal",
            annotation_clip=False,
        )


def _label_settings(axes: Axes, table: Retained, left_inches: float, cell_inches: float) -> None:
    """Left of the map: the share kept in each row, the method once, and a line between methods."""

    def beside(row: float, text: str, inches: float, align: Literal["left", "right"], *, bold: bool = False) -> None:
        axes.annotate(
            text,
            (0, row),
            (-72 * inches, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha=align,
            va="center_baseline",
            fontsize=8 if bold else 7.5,
            weight="bold" if bold else "normal",
            annotation_clip=False,
        )

    before = None
    edge = (-0.5 - (left_inches - MARGIN_INCHES) / cell_inches, len(table.kinds) - 0.5)
    right = "all tokens, % right" if table.measure == "accuracy" else "all tokens"
    beside(FULL_ROW, right, 0.08, "right")
    for row, (method, share) in enumerate(table.settings):
        beside(row, percent(share), 0.08, "right")
        if method != before:
            beside(row, method, left_inches - MARGIN_INCHES, "left", bold=True)
            if row:
                axes.plot(edge, (row - 0.5, row - 0.5), color=MUTED, linewidth=0.5, clip_on=False)
        before = method


def _own_budgets(chosen: Sequence[Row]) -> list[Row]:
    """Without the rows of baselines that repeat each count of each other method, where there are others."""
    own = {row["method"] for row in chosen if row.get("matches") is None}
    return [row for row in chosen if row.get("matches") is None or row["method"] not in own]


def _setting(row: Row) -> tuple[object, ...]:
    """What the rows of one setting have in common; their counts of tokens differ, by the items asked about."""
    return (row["method"], row.get("keep"), row.get("matches"))


def _ratio(part: float | None, whole: float | None) -> float:
    return part / whole if part is not None and whole else math.nan
