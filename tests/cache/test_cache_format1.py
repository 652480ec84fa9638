"""A cache of format 1 that was written when the format was fixed stays readable, whatever the code becomes.

``python tests/cache/test_cache_format1.py`` wrote the folder beside this file, once. It is never written again: a
change that makes this test fail needs a new format number.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from cache_common import assert_same_item

from tokcli.cache import CacheWriter, ErrorRow, Manifest, open_cache, verify_cache
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
    import shutil

    shutil.copytree(FOLDER, tmp_path / "cache")
    with CacheWriter(tmp_path / "cache", MANIFEST) as writer:
        assert writer.counts() == {"items": 2, "failed": 1}
        writer.write(items()[1])
    assert open_cache(tmp_path / "cache").ids() == ["clip é.mp4", "still.png"]
    assert verify_cache(tmp_path / "cache") == []


if __name__ == "__main__":
    write(FOLDER)
