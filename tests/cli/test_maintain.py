"""`tokcli verify --deep`, `repair`, `compact`, `merge` and `plan` on real caches of rendered clips."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tokcli.cache import open_cache
from tokcli.cache.manifest import read_manifest

Tokcli = Callable[..., Any]


@pytest.fixture(scope="module")
def made(clip_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in three shards, by several runs."""
    from tokcli.pipeline.compress import compress
    from tokcli.recipe import CompressRecipe

    cache = tmp_path_factory.mktemp("made") / "cache"
    for count in (2, 4, 6):
        inputs = [str(path) for path in clip_files[:count]]
        compress(CompressRecipe(inputs=inputs, output=str(cache), method="dtd", workers=1, dtype="float32"))
    return cache


@pytest.fixture
def cache(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "cache"))


def tokens(cache: Path) -> dict[str, torch.Tensor]:
    opened = open_cache(cache)
    return {item_id: opened[item_id].kept.tokens for item_id in opened.ids()}


def assert_same_tokens(one: Path, other: Path) -> None:
    left, right = tokens(one), tokens(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[item_id], right[item_id]) for item_id in left)


def damage(cache: Path, number: int = 0) -> list[str]:
    """Flip a bit of some tokens; the ids that stand in that shard."""
    shard = sorted(cache.glob("data/*.parquet"))[number]
    group = pq.read_metadata(shard).row_group(0)
    column = group.column(group.num_columns - 1)
    content = bytearray(shard.read_bytes())
    content[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    shard.write_bytes(content)
    return [str(item_id) for item_id in pq.read_table(shard, columns=["id"])["id"].to_pylist()]


def test_compact(tokcli: Tokcli, cache: Path, made: Path) -> None:
    foreseen = tokcli("compact", cache, "--dry-run", "--json").document
    assert (foreseen["shards_before"], foreseen["shards_after"], foreseen["dry_run"]) == (3, 1, True)
    assert "3 shards -> 1, " in tokcli("compact", cache).stdout
    assert_same_tokens(cache, made)
    assert tokcli("verify", cache).code == 0
    assert tokcli("inspect", cache, "--json").document["complete"] is True


def test_repair_prints_the_command_that_makes_it_whole(tokcli: Tokcli, cache: Path, made: Path) -> None:
    assert tokcli("repair", cache, "--json").document["problems"] == []
    lost = damage(cache)
    looked = tokcli("repair", cache, "--dry-run", "--json")
    assert (looked.code, looked.document["redo"], looked.document["moved"]) == (5, lost, [])
    repaired = tokcli("repair", cache, "--json")
    assert (repaired.code, repaired.document["redo"]) == (3, lost)
    assert tokcli("verify", cache).code == 0
    assert tokcli("repair", cache).code == 0
    command = shlex.split(repaired.document["command"])
    assert command[0] == "tokcli"
    again = tokcli(*command[1:], "--num-workers", 1, "--json")
    assert (again.code, again.document["done"], again.document["failed"]) == (0, 2, 0)  # of the first run's two inputs
    assert_same_tokens(cache, made)


def test_repair_makes_it_again_at_once(tokcli: Tokcli, cache: Path, made: Path, clip_files: list[Path]) -> None:
    lost = damage(cache, 1)
    inputs = [word for path in clip_files for word in ("--inputs", path)]
    result = tokcli("repair", cache, *inputs, "--json")
    told, summary = (json.loads(line) for line in result.stdout.splitlines())
    assert (result.code, told["redo"], summary["done"], summary["skipped"]) == (0, lost, len(lost), 6 - len(lost))
    assert_same_tokens(cache, made)
    assert tokcli("repair", cache, "--inputs", "x", "--dry-run").code == 2


def test_repair_that_is_not_possible(tokcli: Tokcli, cache: Path, tmp_path: Path) -> None:
    (cache / "manifest.json").write_text("{")
    assert tokcli("repair", cache).code == 5
    assert tokcli("repair", tmp_path).code == 1


def test_merge(tokcli: Tokcli, cache: Path, made: Path, clip_files: list[Path], tmp_path: Path) -> None:
    options = ("--method", "dtd", "--dtype", "float32", "--num-workers", 1, "-q")
    for name, part in (("one", clip_files[:3]), ("two", clip_files[2:])):
        assert tokcli("compress", *part, "-o", tmp_path / name, *options).code == 0
    merged = tokcli("merge", tmp_path / "one", tmp_path / "two", "-o", tmp_path / "all", "--json")
    assert (merged.code, merged.document["items"], merged.document["copied"]) == (0, 6, 6)
    assert merged.document["complete"] is True
    assert_same_tokens(tmp_path / "all", made)
    # A merged cache is a cache like any other: the run over all inputs finds nothing to do.
    again = tokcli("compress", *clip_files, "-o", tmp_path / "all", *options[:-1], "--json").document
    assert (again["done"], again["skipped"]) == (0, 6)
    other = tokcli("compress", clip_files[0], "-o", tmp_path / "other", "--method", "evs", "--keep", 0.5, "-q")
    assert other.code == 0
    refused = tokcli("merge", tmp_path / "one", tmp_path / "other", "-o", tmp_path / "more")
    assert refused.code == 4 and "was made with another configuration" in refused.error
    assert tokcli("merge", tmp_path / "one", "-o", tmp_path / "one").code == 2
    assert tokcli("merge", tmp_path / "one", "-o", tmp_path / "x", "--on-conflict", "oldest").code == 2


def test_deep_verification_finds_what_checksums_cannot(tokcli: Tokcli, cache: Path, tmp_path: Path) -> None:
    """A cache that is sound and wrong: its tokens are not those of its sources."""
    from tokcli.cache import CacheWriter

    sound = tokcli("verify", cache, "--deep", "--sample", 3, "--json")
    assert (sound.code, sound.document["deep"]["exact"]) == (0, True)
    assert [item["outcome"] for item in sound.document["deep"]["items"]] == ["equal"] * 3
    wrong = tmp_path / "wrong"
    opened = open_cache(cache)
    with CacheWriter(wrong, read_manifest(cache)) as writer:
        for item in opened:
            item.kept.tokens[0, 0] += item.kept.tokens[0].abs().max() / 127  # int8: the least that it can differ by
            writer.write(item)
        writer.finish(opened.ids())
    assert tokcli("verify", wrong).code == 0
    result = tokcli("verify", wrong, "--deep", "--sample", 2, "-q")
    assert result.code == 5
    assert "different" in result.stdout or "close" in result.stdout
    assert "as stored: 0 of 2 items encoded again (bit for bit)" in result.stdout


def test_plan(tokcli: Tokcli, clips: Path, tmp_path: Path) -> None:
    options = ("--dtype", "float32", "--num-workers", 1)
    asked = ("-m", "dtd", "-m", "uniform@0.25", "-m", "none")
    document = tokcli("plan", clips, *asked, "--sample", 6, *options, "--json").document
    assert document["items"] == len(document["sample"]) == 6
    assert [method["codec"] for method in document["methods"]] == ["int8", "int8", "float32"]
    for method, spec in zip(document["methods"], (("dtd",), ("uniform", "--keep", 0.25))):
        real = tokcli("compress", clips, "-o", tmp_path / spec[0], "--method", *spec, *options, "--json").document
        # All inputs were tried: nothing is left to guess but what full shards save in footers.
        for name in ("kept_tokens", "source_tokens"):
            figures = method[name]
            assert figures["low"] == figures["high"] == pytest.approx(real[name], rel=1e-9)
        assert method["cache_bytes"]["value"] == pytest.approx(real["cache_bytes"], rel=0.25)
        assert 0 < method["hours"]["value"] < 1
    fewer = tokcli("plan", clips, "--sample", 2, *options, "-q")
    assert fewer.code == 0
    assert "6 inputs" in fewer.stdout and "from 2 of them" in fewer.stdout and " to " in fewer.stdout
    assert not list(tmp_path.glob("plan*"))
    assert tokcli("plan", clips, "-m", "dtt").code == 2


def test_plan_with_files_that_do_not_open(tokcli: Tokcli, clips: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"nothing")
    result = tokcli("plan", clips, bad, "--sample", 7, "--num-workers", 1, "--json")
    assert (result.code, result.document["failed"]) == (3, [str(bad)])
    assert tokcli("plan", bad, "--num-workers", 1).code == 1


def test_plan_says_that_a_budget_will_not_be_met(tokcli: Tokcli, clip_files: list[Path], tmp_path: Path) -> None:
    """evs keeps stills whole: the note that compress gives at its end comes before it is begun."""
    media, options = tmp_path / "media", ("--dtype", "float32", "--num-workers", 1)
    media.mkdir()
    shutil.copy(clip_files[0], media)
    Image.new("RGB", (96, 96), "red").save(media / "still.png")
    result = tokcli("plan", media, "-m", "evs@0.2", "-m", "uniform@0.2", *options)
    run = tokcli("compress", media, "-o", tmp_path / "cache", "--method", "evs", "--keep", 0.2, *options)
    (told,) = (line.strip() for line in run.stdout.splitlines() if "over the budget" in line)
    assert "up to 100.0%" in told and "still.png" in told
    (noted,) = (line for line in result.stdout.splitlines() if "over the budget" in line)
    assert noted == f"evs@0.2: of those tried, {told}"
    document = tokcli("plan", media, "-m", "evs@0.2", "-m", "uniform@0.2", *options, "--json").document
    over, met = (method["over_budget"] for method in document["methods"])
    assert over["worst"] == str(media / "still.png") and over["largest_share"] == 1.0
    assert met is None
