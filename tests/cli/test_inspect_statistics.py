"""`tokcli inspect`: what it shows of a cache's tokens, and what it reads for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokcli.cli.statistics import sparkline, timeline_rows

Tokcli = Any


def test_metadata_alone_by_default(tokcli: Tokcli, clip_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokcli.cache import Cache

    def refuse(self: Cache, key: object) -> None:
        raise AssertionError("read an item's tokens")

    monkeypatch.setattr(Cache, "__getitem__", refuse)
    document = tokcli("inspect", clip_cache, "--accuracy", 0.5, "--json").document
    statistics, stats = document["statistics"], document["stats"]
    assert statistics["tokens_per_second"]["kept"] == pytest.approx(stats["kept_tokens"] / stats["media_seconds"])
    assert statistics["kept_share"] == {"min": 1.0, "median": 1.0, "max": 1.0}
    assert statistics["tok_dense"] == pytest.approx(50 / (stats["kept_tokens"] / 6))
    assert statistics["sample"] is None
    page = tokcli("inspect", clip_cache, "--accuracy", 0.5)
    assert "per second" in page.stdout and "TokDense" in page.stdout and "rank" not in page.stdout


def test_tokens_of_a_sample(tokcli: Tokcli, clip_cache: Path) -> None:
    document = tokcli("inspect", clip_cache, "--tokens", "--sample", 4, "--json").document
    sample = document["statistics"]["sample"]
    assert sample["items"] == 4
    assert sample["coverage"]["top"]["share"] == pytest.approx(sample["coverage"]["top"]["even"])  # nothing dropped
    assert set(sample["drop_ratio_by_tenth"]) <= {0.0, None}
    assert 1 < sample["effective_rank"] <= sample["rank_tokens"]
    page = tokcli("inspect", clip_cache, "--tokens", "--sample", 4).stdout
    assert "From the tokens of 4 of 6 items" in page and "effective rank" in page


def test_one_item(tokcli: Tokcli, clip_cache: Path) -> None:
    from tokcli.cache import open_cache

    item = open_cache(clip_cache)[0]
    document = tokcli("inspect", clip_cache, item.id, "--json").document
    assert document["item"]["kept_tokens"] == len(item.kept)
    timeline = document["statistics"]["timeline"]
    assert timeline["drop_ratio"] == [0.0] * item.views[0].grid[0]
    assert timeline["seconds"][:2] == [0.0, item.seconds_per_step]
    page = tokcli("inspect", clip_cache, item.id).stdout
    assert "█" * item.views[0].grid[0] in page
    assert "scene cuts" in page and "none" in page


def test_an_item_that_is_not_there(tokcli: Tokcli, clip_cache: Path) -> None:
    result = tokcli("inspect", clip_cache, "nowhere.mp4")
    assert result.code == 1
    assert "nowhere.mp4" in result.error
    result = tokcli("inspect", clip_cache, "nowhere.mp4", "--items")
    assert (result.code, "leave out the ID" in result.error) == (2, True)
    assert tokcli("inspect", clip_cache, "--accuracy", 93).code == 2


def test_sparkline_rounds_up_to_eighths() -> None:
    assert sparkline([0.0, 0.01, 0.125, 0.126, 0.5, 0.99, 1.0, 1.2, None]) == "·▁▁▂▄███ "


def test_long_timelines_show_the_fullest_step_of_each_sign() -> None:
    drop = [1.0] * 120
    drop[0], drop[61] = 0.0, 0.5
    signs, ruler, steps = timeline_rows([step / 2 for step in range(120)], drop)
    assert steps == 2
    assert (len(signs), signs[0], signs[30], set(signs[1:30])) == (60, "█", "▄", {"·"})
    assert ruler == "0.0s".ljust(55) + "59.0s"
    assert timeline_rows([0.0], [0.0]) == ("█", "0.0s", 1)
