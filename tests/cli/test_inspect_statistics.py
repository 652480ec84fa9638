"""`tokcli inspect`: what it shows of a cache's tokens, and what it reads for that."""

from __future__ import annotations

from dataclasses import replace
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


def test_an_item_by_the_end_of_its_id_as_infer_finds_it(tokcli: Tokcli, clip_cache: Path, tmp_path: Path) -> None:
    from tokcli.cache import CacheWriter, ErrorRow, open_cache

    opened = open_cache(clip_cache)
    item, path = opened[0], tmp_path / "cache"
    name = Path(item.id).name
    assert name != item.id
    assert tokcli("inspect", clip_cache, name, "--json").document["item"]["id"] == item.id
    assert tokcli("inspect", clip_cache, name).stdout.startswith(item.id)
    with CacheWriter(path, opened.manifest) as writer:
        for folder in ("a", "b"):
            writer.write(replace(item, id=f"{folder}/x/{name}"))
        writer.fail(ErrorRow(f"x/{name}", f"x/{name}", "decode", "MediaError", "no frames"))
        writer.finish([f"a/x/{name}", f"b/x/{name}", f"x/{name}"])
    assert "has no item" in tokcli("inspect", path, name).error, "two have it"
    assert tokcli("inspect", path, f"b/x/{name}", "--json").document["item"]["id"] == f"b/x/{name}"
    assert "failed when" in tokcli("inspect", path, f"x/{name}").error, "the one that failed is meant, no other"


def test_errors_are_counted_by_reason_first(tokcli: Tokcli, clip_cache: Path, tmp_path: Path) -> None:
    from tokcli.cache import CacheWriter, ErrorRow, open_cache

    reasons = [("decode", "MediaError")] * 2 + [("open", "MediaError")] + [("decode", "DecoderTimeout")] * 3
    reasons += [("encode", f"Error{number}") for number in range(9)]
    ids = [f"{number}.mp4" for number in range(len(reasons))]
    with CacheWriter(tmp_path / "cache", open_cache(clip_cache).manifest) as writer:
        for item_id, (stage, kind) in zip(ids, reasons):
            writer.fail(ErrorRow(item_id, item_id, stage, kind, f"{item_id}: no"))
        writer.finish(ids)
    page = tokcli("inspect", tmp_path / "cache", "--errors").stdout
    told = " ".join(page[: page.index("0.mp4")].split())
    assert "reasons 3 decode DecoderTimeout, 2 decode MediaError, 1 open MediaError, 1 encode Error0," in told
    assert ", 4 of 4 other kinds" in told and "Error5" not in told
    assert "reasons" not in tokcli("inspect", tmp_path / "cache").stdout
    assert "reasons" not in tokcli("inspect", clip_cache, "--errors").stdout


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
