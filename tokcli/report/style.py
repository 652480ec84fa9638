"""How every picture looks: colours, markers, sizes, and files that are the same bytes for the same rows."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tokcli.errors import UsageError
from tokcli.report.points import BASELINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_INCHES = 7.2
"""A page of two columns (183 mm): the picture is printed as it is, so font sizes are those on paper."""
HEAD_INCHES, MARGIN_INCHES = 0.5, 0.1
PNG_DPI = 220
INK, MUTED, FAINT = "#1a1a1a", "#666666", "#e4e4e4"

# Okabe and Ito without their yellow, which is lost on white, then four of Paul Tol's: for any colour vision.
_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#882255",
    "#332288",
    "#999933",
    "#44AA99",
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
# Methods whose colour is fixed by name. Others get one by their name too, but step aside where it is taken.
_SLOTS = {"dtd": 0, "evs": 1, "keyframes": 2}
_BASELINE_STYLES = {
    "uniform": ("#4d4d4d", "o", (0, (5, 1.5))),
    "random": ("#707070", "s", (0, (1.2, 1.2))),
    "pool2d": ("#858585", "^", (0, (6, 1.5, 1.2, 1.5))),
    "downsample": ("#9c9c9c", "D", (0, (2.5, 1.5))),
}


@dataclass(frozen=True)
class MethodStyle:
    colour: str
    marker: str
    dashes: tuple[int, tuple[float, ...]] | str
    """Line style of matplotlib."""
    filled: bool
    """Baselines have hollow markers."""

    @property
    def size(self) -> float:
        """Of the marker, in points: crosses have less ink than discs."""
        return (6.0 if self.marker in "PX" else 4.8) if self.filled else 4.0


def method_styles(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """Colour, marker and dashes of each method: by its name, and different within a picture of up to ten methods."""
    methods = sorted(set(methods))
    styles = {name: MethodStyle(*_BASELINE_STYLES[name], filled=False) for name in methods if name in _BASELINE_STYLES}
    taken = {_SLOTS[name] for name in methods if name in _SLOTS}
    for name in methods:
        if name in styles:
            continue
        slot = _SLOTS.get(name)
        if slot is None:
            first = zlib.crc32(name.encode()) % len(_COLOURS)
            order = [(first + step) % len(_COLOURS) for step in range(len(_COLOURS))]
            slot = next((free for free in order if free not in taken), first)
            taken.add(slot)
        styles[name] = MethodStyle(_COLOURS[slot], _MARKERS[slot], "-", filled=True)
    return styles


def is_baseline(method: str) -> bool:
    return method in BASELINES


def percent(value: float) -> str:
    """0.0625 -> '6.25%', 0.965 -> '96.5%', 0.5 -> '50%'."""
    return f"{100 * value:.3g}%" if value < 10 else f"{100 * value:.0f}%"


def new_figure(height_inches: float, title: str, subtitle: str, *, by_hand: bool = False) -> Figure:
    """A figure of its own, without pyplot and its global list of windows; laid out by matplotlib or by the caller.

    At the top stands what is shown, in bold, and below it how to read it: ``HEAD_INCHES`` that are taken.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    below = (0, 0, 1, 1 - HEAD_INCHES / height_inches)
    layout = "none" if by_hand else ConstrainedLayoutEngine(rect=below)
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout=layout)
    FigureCanvasAgg(figure)
    x = MARGIN_INCHES / WIDTH_INCHES
    figure.text(x, 1 - 0.2 / height_inches, title, fontsize=10.5, weight="bold")
    figure.text(x, 1 - 0.38 / height_inches, subtitle, fontsize=8, color=MUTED)
    return figure


def plain_axes(axes: Axes) -> None:
    """No box, faint horizontal lines, small ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=INK, labelsize=8, length=3, color=MUTED)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def write_figure(draw: Callable[[], Figure], path: Path) -> list[Path]:
    """Draw under this style and write ``path`` with the suffixes .png and .svg; the two paths."""
    with _style():
        figure = draw()
        png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
        figure.savefig(png, dpi=PNG_DPI, metadata={"Software": None})
        figure.savefig(svg, format="svg", metadata={"Date": None, "Title": path.stem})
    return [png, svg]


def _style() -> AbstractContextManager[None]:
    """Settings for the time of one drawing, whatever the user's own matplotlibrc says."""
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise UsageError('plots need matplotlib, which is not installed: pip install "tokcli[report]"') from error
    defaults = {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}
    return matplotlib.rc_context(
        defaults
        | {
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same picture on every machine
            "font.size": 8.5,
            "text.color": INK,
            "axes.labelcolor": INK,
            "svg.fonttype": "none",  # text stays text: it can be searched, read aloud and edited
            "svg.hashsalt": "tokcli",
        }
    )
