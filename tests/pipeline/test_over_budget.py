"""Budgets that items do not meet, against numbers by hand and in whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tokcli.methods import resolve
from tokcli.pipeline.compress import compress
from tokcli.pipeline.over_budget import over_budget
from tokcli.pipeline.progress import OverBudget
from tokcli.recipe import CompressRecipe


def table(*rows: tuple[str, int, int, list[tuple[int, int, int]]]) -> pa.Table:
    return pa.table(
        {
            "id": [row[0] for row in rows],
            "source_tokens": [row[1] for row in rows],
            "kept_tokens": [row[2] for row in rows],
            "views": [[dict(zip("thw", grid)) for grid in row[3]] for row in rows],
        }
    )


@pytest.mark.parametrize(
    ("row", "share"),
    [
        ((100, 20, [(1, 10, 10)]), None),
        ((100, 22, [(1, 10, 10)]), None),  # within a tenth
        ((100, 23, [(1, 10, 10)]), 0.23),
        ((4, 2, [(1, 2, 2)]), None),  # one token is the least that can be kept, and one more is no news
        ((4, 3, [(1, 2, 2)]), 0.75),
        ((110, 30, [(1, 10, 10)]), None),  # ten structural rows on top
        ((110, 33, [(1, 10, 10)]), 0.23),
        ((300, 66, [(1, 10, 10), (2, 10, 10)]), None),
        ((300, 67, [(1, 10, 10), (2, 10, 10)]), 0.2233),
    ],
)
def test_what_is_clearly_more(row: tuple[int, int, list[tuple[int, int, int]]], share: float | None) -> None:
    found = over_budget(resolve("uniform", keep=0.2), table(("a", *row)))
    assert found == (None if share is None else OverBudget(1, 0.2, share, "a"))


def test_the_worst_of_several_is_named() -> None:
    rows = [(name, 100, kept, [(1, 10, 10)]) for name, kept in (("a", 20), ("b", 90), ("c", 30), ("d", 100))]
    assert over_budget(resolve("uniform", keep=0.2), table(*rows)) == OverBudget(3, 0.2, 1.0, "d")
    assert over_budget(resolve("dtd", keep=0.2), table(*rows[:1])) is None
    for without in (resolve("dtd", threshold=0.2), resolve("none"), resolve("uniform", max_tokens=5)):
        assert over_budget(without, table(*rows)) is None
    assert over_budget(resolve("uniform", keep=0.2), table()) is None


@pytest.mark.parametrize(("method", "over"), [("evs", True), ("uniform", False)])
def test_a_run_says_so(clips: Path, tmp_path: Path, method: str, over: bool) -> None:
    """evs keeps the first step whole, far more of these short clips than asked for."""
    common: dict[str, Any] = {"inputs": [str(next(clips.glob("*.mp4")))], "workers": 1, "dtype": "float32"}
    summary = compress(CompressRecipe(output=str(tmp_path / "cache"), method=method, keep=0.02, **common))
    share = summary.kept_tokens / summary.source_tokens
    if over:
        assert summary.over_budget is not None and share > 0.04
        assert (summary.over_budget.items, summary.over_budget.keep) == (1, 0.02)
        assert summary.over_budget.largest_share == round(share, 4)
    else:
        assert summary.over_budget is None
