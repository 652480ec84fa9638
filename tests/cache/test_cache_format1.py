"""Caches of format 1 that were written once stay readable, whatever the code becomes.

``python tests/cache/test_cache_format1.py NAME`` wrote the folders beside this file, each once: ``format-1`` when the
format was fixed, ``format-1-checksums`` when rows and the manifest got checksums. They are never written again: a
change that makes these tests fail needs a new format number.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from cache_common import assert_same_item

from tokcli.cache import CacheWriter, ErrorRow, Manifest, compact_cache, merge_caches, open_cache, verify_cache
from tokcli.types import EncodedItem, TokenSet, View

FOLDER = Path(__file__).parent / "format-1"
MANIFEST = Manifest(
    {"model": {"model": "nano", "fingerprint": "0" * 64}, "method": {"name": "dtd"}, "tokens_dtype": "bfloat16"},
    {"note": "kept for ever"},
    format=1,
    tokcli="0.1.0",
    created="2026-11-20T00:00:00+00:00",
)


def items() -> list[EncodedItem]:
    """A pruned video in two rows and a merged image, without anything random."""
    rows = torch.tensor([0, 3, 4, 9, 10, 11])
    video = TokenSet(
        tokens=torch.arange(24).float().div(8).bfloat16().reshape(6, 4),
        coords=torch.stack([rows * 0, rows // 6, rows % 6 // 3, rows % 3], 1).int(),
        mass=torch.ones(6),
        source=rows,
        stats={"drop_ratio": np.array([0.25, 0.75], np.float32), "trigger": np.array([1], np.int64)},
    )
    image = TokenSet(
        tokens=torch.tensor([[1.5, -2, 0, float("inf")]]).bfloat16(),
        coords=torch.tensor([[0, 0, 1, 0]]).int(),
        mass=torch.tensor([3.5]),
        source=torch.tensor([2]),
        assignment=torch.tensor([0, -1, 0, 0]).int(),
    )
    common = {"decoder": "none 1", "source_modified_ns": 7, "source_hash": "0123456789abcdef" * 4}
    return [
        EncodedItem(
            "clip é.mp4", "clips/clip é.mp4", "video", video, (View("frames", (2, 2, 3)),), 12,
            np.array([0.0, 0.5]), np.array([0, 15]), (56, 84), (480, 640), 1.0, 29.97, 2.0, 0.5, "h264",
            source_bytes=1234, bad_packets=1, corrupt_frames=2, metadata={"label": "cat", "year": 2020}, **common,
        ),
        EncodedItem(
            "still.png", "still.png", "image", image, (View("image", (1, 2, 2)),), 4,
            np.array([0.0]), np.array([0]), (56, 56), (100, 90), 0.0, None, None, None, "png",
            source_bytes=99, metadata={"label": None, "year": 2021}, **common,
        ),
    ]  # fmt: skip


def write(folder: Path) -> None:
    """The run that wrote the folder."""
    with CacheWriter(folder, MANIFEST, chunk_bytes=24) as writer:
        for item in items():
            writer.write(item)
        writer.fail(ErrorRow("bad.mp4", "bad.mp4", "decode", "MediaError", "no frames", 2, "[mov] no moov", 10, 7))
        writer.finish(["clip é.mp4", "still.png", "bad.mp4"])
    (folder / ".lock").unlink()


def test_format_1_stays_readable() -> None:
    cache = open_cache(FOLDER)
    assert cache.manifest == MANIFEST
    for got, want in zip(cache, items(), strict=True):
        assert_same_item(got, want)
    (error,) = cache.errors().to_pylist()
    assert (error["id"], error["message"], error["log_tail"]) == ("bad.mp4", "no frames", "[mov] no moov")
    assert json.loads((FOLDER / "_SUCCESS").read_text()) == {"items": 2, "failed": 1}
    assert verify_cache(FOLDER) == []


def test_format_1_can_be_resumed(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "cache")
    with CacheWriter(tmp_path / "cache", MANIFEST) as writer:
        assert writer.counts() == {"items": 2, "failed": 1}
        writer.write(items()[1])
    assert open_cache(tmp_path / "cache").ids() == ["clip é.mp4", "still.png"]
    assert verify_cache(tmp_path / "cache") == []


@pytest.mark.parametrize("pruned", [set(), {"still.png"}])
def test_format_1_can_be_rewritten(tmp_path: Path, pruned: set[str]) -> None:
    """Rows from before there were checksums get one, and stay what they were."""
    shutil.copytree(FOLDER, tmp_path / "cache")
    with CacheWriter(tmp_path / "cache", MANIFEST) as writer:
        writer.fail(ErrorRow("new.mp4", "new.mp4", "decode", "MediaError", "no frames"))
        writer.prune({"bad.mp4", *pruned})
    compact_cache(tmp_path / "cache")
    merge_caches([tmp_path / "cache"], tmp_path / "merged")
    for path in (tmp_path / "cache", tmp_path / "merged"):
        want = [item for item in items() if item.id not in pruned]
        for got, item in zip(open_cache(path), want, strict=True):
            assert_same_item(got, item)
        assert verify_cache(path) == []
    (part,) = (tmp_path / "merged" / "data").iterdir()
    assert "row_crc32" in pq.read_schema(part).names


CHECKED = Path(__file__).parent / "format-1-checksums"
CHECKED_MANIFEST = Manifest(
    {
        "model": {"model": "stacked", "fingerprint": "1" * 64, "deepstack_levels": 2},
        "method": {"name": "none"},
        "tokens_dtype": "float16",
    },
    {"note": "kept for ever, too", "inputs": ["clips"]},
    format=1,
    tokcli="0.1.0",
    created="2026-11-26T00:00:00+00:00",
)


def stacked_items() -> list[EncodedItem]:
    """A clip in three rows with levels, signals, newlines and an early end, and a still of two views."""
    count = 12
    rows = torch.arange(count)
    video = TokenSet(
        tokens=torch.arange(count * 3).float().div(4).half().reshape(count, 3),
        coords=torch.stack([rows * 0, rows // 6, rows % 6 // 3, rows % 3], 1).int(),
        mass=torch.ones(count),
        source=rows,
        deepstack=torch.arange(count * 6).float().neg().div(8).half().reshape(count, 2, 3),
        stats={
            "signal.pixel_change": np.arange(count, dtype=np.float32) / 16,
            "structural": np.array([False, False, True] * 4),
            "announced_steps": np.array([3], np.int64),
        },
    )
    still = TokenSet(
        tokens=torch.tensor([[0.5, -1, 2], [float("-inf"), float("nan"), 0]]).half(),
        coords=torch.tensor([[0, 0, 0, 1], [1, 0, 1, 1]]).int(),
        mass=torch.tensor([2.5, 1.0]),
        source=torch.tensor([1, 7]),
        deepstack=torch.ones(2, 2, 3).half(),
        assignment=torch.tensor([0, 0, 0, -1, -1, -1, -1, 1]).int(),
    )
    common = {"decoder": "none 2", "source_modified_ns": 8, "source_hash": "fedcba9876543210" * 4}
    return [
        EncodedItem(
            "a\\xff.mkv", "clips/a\\xff.mkv", "video", video, (View("frames", (2, 2, 3)),), count,
            np.array([0.0, 1 / 3]), np.array([0, 10]), (56, 84), (480, 640), 2 / 3, 30.0, 3.0, 1 / 3, "vp9",
            source_bytes=5, metadata={"label": "x", "score": 1.5, "tags": ["a", "b"]}, **common,
        ),
        EncodedItem(
            "tiles.webp", "tiles.webp", "image", still, (View("thumbnail", (1, 2, 2)), View("crop", (1, 2, 2))), 8,
            np.array([0.0]), np.array([0]), (56, 56), (100, 90), 0.0, None, None, None, "webp",
            source_bytes=6, metadata={"label": None, "score": 2.0, "tags": []}, **common,
        ),
    ]  # fmt: skip


def write_checked(folder: Path) -> None:
    """The runs that wrote the folder: an item is superseded, and one that failed works later."""
    video, still = stacked_items()
    with CacheWriter(folder, CHECKED_MANIFEST, chunk_bytes=5 * 18) as writer:
        writer.write(replace(video, source_bytes=4))
        writer.fail(ErrorRow("tiles.webp", "tiles.webp", "open", "MediaError", "empty", source_bytes=0))
        writer.commit()
        writer.write(video)
        writer.write(still)
        writer.fail(ErrorRow("b.mp4", "b.mp4", "method", "MethodError", "no budget", 2, "", 11, 12))
        writer.finish([video.id, still.id, "b.mp4"])
    (folder / ".lock").unlink()


def test_format_1_with_checksums_stays_readable() -> None:
    cache = open_cache(CHECKED)
    assert cache.manifest == CHECKED_MANIFEST
    assert "blake3" in json.loads((CHECKED / "manifest.json").read_text())
    for got, want in zip(cache, stacked_items(), strict=True):
        assert_same_item(got, want)
        assert got.kept.deepstack is not None and want.kept.deepstack is not None
        assert torch.equal(got.kept.deepstack, want.kept.deepstack)
    (error,) = cache.errors().to_pylist()
    assert (error["id"], error["stage"], error["attempts"], error["source_modified_ns"]) == ("b.mp4", "method", 2, 12)
    assert json.loads((CHECKED / "_SUCCESS").read_text()) == {"items": 2, "failed": 1}
    assert len(list(CHECKED.glob("data/*.parquet"))) == len(list(CHECKED.glob("errors/*.parquet"))) == 2
    assert verify_cache(CHECKED) == []


if __name__ == "__main__":
    {FOLDER.name: write, CHECKED.name: write_checked}[sys.argv[1]](Path(__file__).parent / sys.argv[1])
