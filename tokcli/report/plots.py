"""All pictures of an evaluation, in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokcli.report.curves import draw_curves
from tokcli.report.heatmap import draw_heatmap, retained
from tokcli.report.points import Axis, curves
from tokcli.report.style import write_figure

_NAMES: dict[Axis, str] = {"tokens": "accuracy-by-tokens", "bytes": "accuracy-by-bytes"}


def write_plots(rows: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Draw the rows of results.json as PNG and SVG into ``folder``, which is made if needed; the files written.

    A row: ``{method, keep, kind, accuracy, ci: [low, high], n, kept_tokens, source_tokens, cache_bytes, source_bytes,
    chance, matches, measure}``. ``kind`` null stands for all kinds together; ``full``, ``blind`` and ``guess`` are
    references and not methods; the last three may be missing. A picture that the rows have nothing for is left out.
    The same rows give the same SVG bytes. Raises ``UsageError`` without matplotlib.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for axis, name in _NAMES.items():
        if curves(rows, axis):
            written += write_figure(lambda axis=axis: draw_curves(rows, axis), folder / name)  # type: ignore[misc]
    table = retained(rows)
    if table is not None:
        written += write_figure(lambda: draw_heatmap(table), folder / "retained-by-kind")
    return written
