"""Items and manifests for the cache's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from tokcli.cache import CacheWriter, Manifest
from tokcli.types import EncodedItem, MediaItem, TokenSet, View

GRID = (4, 8, 16)
HIDDEN = 8


def make_manifest(**changes: Any) -> Manifest:
    """A manifest as a run makes it; ``changes`` replace arguments of ``Manifest.create``."""
    arguments: dict[str, Any] = {
        "model": {"model": "nano", "fingerprint": "f" * 64, "dtype": "bfloat16", "torch_version": "2.9"},
        "sampling": {"fps": 1.0, "num_frames": None},
        "method": {"name": "dtd", "options": {"threshold": 0.5}},
        "tokens_dtype": "float16",
        "resize": "torch",
        "decoder": "pyav",
    }
    return Manifest.create(**arguments | changes)


def make_item(
    item_id: str = "a.mp4", kept: int = 20, *, seed: int = 0, dtype: torch.dtype = torch.float16, **changes: Any
) -> EncodedItem:
    """A video whose kept tokens stand at random places of its grid."""
    generator = torch.Generator().manual_seed(seed)
    full = GRID[0] * GRID[1] * GRID[2]
    source = torch.randperm(full, generator=generator)[:kept].sort().values
    y, x = source // GRID[2] % GRID[1], source % GRID[2]
    coords = torch.stack([torch.zeros_like(source), source // (GRID[1] * GRID[2]), y, x], 1).int()
    tokens = torch.randn(kept, HIDDEN, generator=generator).to(dtype)
    token_set: dict[str, Any] = {"tokens": tokens, "coords": coords, "mass": torch.ones(kept), "source": source}
    token_set |= {name: changes.pop(name) for name in ("mass", "assignment", "stats") if name in changes}
    values: dict[str, Any] = {
        "id": item_id,
        "path": f"clips/{item_id}",
        "kind": "video",
        "kept": TokenSet(**token_set),
        "views": (View("frames", GRID),),
        "source_tokens": full,
        "times": np.arange(GRID[0], dtype=np.float64) / 2,
        "indices": np.arange(GRID[0], dtype=np.int64) * 15,
        "frame_size": (112, 224),
        "source_size": (480, 640),
        "duration_seconds": 2.0,
        "source_fps": 29.97,
        "sample_fps": 2.0,
        "seconds_per_step": 0.5,
        "codec": "h264",
        "decoder": "pyav 18",
        "source_bytes": 1000,
        "source_modified_ns": 5,
        "source_hash": "ab" * 32,
    }
    return EncodedItem(**values | changes)


def media_item(item_id: str, size: int = 1000, modified_ns: int = 5) -> MediaItem:
    """The file that ``make_item`` pretends to have read."""
    return MediaItem(item_id, f"clips/{item_id}", size, modified_ns)


def write_cache(path: Path, *items: EncodedItem, manifest: Manifest | None = None, **options: Any) -> None:
    """One run that writes all items and finishes."""
    with CacheWriter(path, manifest or make_manifest(), **options) as writer:
        for item in items:
            writer.write(item)
        writer.finish([item.id for item in items])


def assert_same_item(got: EncodedItem, want: EncodedItem) -> None:
    """Equality of every field, of tensors bit for bit."""
    for name in ("tokens", "coords", "mass", "source", "assignment"):
        one, other = getattr(got.kept, name), getattr(want.kept, name)
        if other is None:
            assert one is None, name
            continue
        assert one.dtype == other.dtype, name
        assert one.shape == other.shape, name
        assert one.contiguous().view(torch.uint8).equal(other.contiguous().view(torch.uint8)), name
    assert got.kept.stats.keys() == want.kept.stats.keys()
    for name, values in want.kept.stats.items():
        assert got.kept.stats[name].dtype == values.dtype
        np.testing.assert_array_equal(got.kept.stats[name], values)
    for name in ("times", "indices"):
        assert getattr(got, name).dtype == getattr(want, name).dtype
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    plain = (name for name in EncodedItem.__dataclass_fields__ if name not in ("kept", "times", "indices"))
    for name in plain:
        assert getattr(got, name) == getattr(want, name), name


def parts(path: Path, table: str = "data") -> list[str]:
    """Names of a table's committed shards, in order."""
    return sorted(part.name for part in (path / table).glob("*.parquet"))
