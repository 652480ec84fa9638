"""What goes in comes out, bit for bit."""

from __future__ import annotations

import os
import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cache_common import GRID, HIDDEN, assert_same_item, make_item, make_manifest, parts, write_cache
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokcli.cache import CacheWriter, open_cache
from tokcli.errors import CacheError, UsageError
from tokcli.types import View

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def special_bits(dtype: torch.dtype) -> torch.Tensor:
    """Every kind of value: zeros of both signs, subnormals, infinities, NaNs with payloads; (rows, HIDDEN)."""
    bits = 8 * dtype.itemsize
    patterns = torch.linspace(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 100 * HIDDEN, dtype=torch.float64)
    return patterns.to({16: torch.int16, 32: torch.int32}[bits]).view(dtype).reshape(-1, HIDDEN)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("chunk_bytes", [1 << 20, 100], ids=["one-row", "many-rows"])
def test_every_bit_comes_back(tmp_path: Path, name: str, chunk_bytes: int) -> None:
    tokens = special_bits(DTYPES[name])
    item = make_item(kept=len(tokens), dtype=DTYPES[name])
    object.__setattr__(item.kept, "tokens", tokens)
    write_cache(tmp_path, item, manifest=make_manifest(tokens_dtype=name), chunk_bytes=chunk_bytes)
    assert_same_item(open_cache(tmp_path)["a.mp4"], item)


def test_tokens_are_stored_little_endian_and_raw(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    item = make_item(kept=1)
    object.__setattr__(item.kept, "tokens", torch.tensor([[1.0, -2.0, 0.5, 0, 0, 0, 0, 0]], dtype=torch.float16))
    write_cache(tmp_path, item)
    row = pq.read_table(next((tmp_path / "data").glob("*.parquet"))).to_pylist()[0]
    assert row["tokens"] == bytes.fromhex("003c00c00038") + bytes(10)  # IEEE 754 binary16 by hand
    assert row["num_tokens"] == 1


@pytest.mark.parametrize("kept", [0, 1, 512])
def test_merging_method_with_statistics(tmp_path: Path, kept: int) -> None:
    item = make_item(
        kept=kept,
        mass=torch.rand(kept) + 0.5,
        assignment=torch.randint(-1, max(kept, 1), (512,)).int().clamp(max=kept - 1),
        stats={
            "drop_ratio": np.array([0.1, 0.9], np.float32),
            "trigger": np.array([3], np.int64),
            "flags": np.array([True, False]),
            "nothing": np.array([], np.float64),
        },
        metadata={"label": "cat", "score": 0.25, "year": 2020, "good": True, "missing": None, "tags": ["a", "b"]},
        views=(View("frames", GRID), View("thumbnail", (1, 2, 2))),
        bad_packets=3,
        corrupt_frames=2,
        seconds_per_step=None,
        source_fps=None,
    )
    write_cache(tmp_path, item, chunk_bytes=64)
    # A column that has only ever been null has no type, so it is not stored.
    object.__setattr__(item, "metadata", {k: v for k, v in item.metadata.items() if v is not None})
    assert_same_item(open_cache(tmp_path)["a.mp4"], item)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.lists(st.integers(0, 512), min_size=1, max_size=8),
    chunk_bytes=st.integers(1, 20_000),
    shard_items=st.integers(1, 4),
    dtype=st.sampled_from(list(DTYPES)),
    names=st.lists(st.text(min_size=1), min_size=8, max_size=8, unique=True),
)
def test_any_items_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    counts: list[int],
    chunk_bytes: int,
    shard_items: int,
    dtype: str,
    names: list[str],
) -> None:
    path = tmp_path_factory.mktemp("cache")
    items = [make_item(name, count, seed=count, dtype=DTYPES[dtype]) for name, count in zip(names, counts)]
    manifest = make_manifest(tokens_dtype=dtype)
    write_cache(path, *items, manifest=manifest, chunk_bytes=chunk_bytes, max_shard_items=shard_items)
    cache = open_cache(path)
    assert cache.ids() == names[: len(items)]
    for got, want in zip(cache, items, strict=True):
        assert_same_item(got, want)
    assert cache.stats()["kept_tokens"] == sum(counts)


def test_wider_tokens_are_rounded_once_and_never_overflow(tmp_path: Path) -> None:
    item = make_item(kept=2, dtype=torch.float32)
    item.kept.tokens[0, 0] = 65519.0  # rounds to 65504, the largest float16
    with CacheWriter(tmp_path, make_manifest()) as writer:
        writer.write(item)
        item.kept.tokens[1, 1] = -65520.0
        with pytest.raises(UsageError, match=r"tokens of b reach 65520, float16 ends at 65504; store them as bfloat16"):
            writer.write(replace(item, id="b"))
        writer.write(make_item("c"))
    cache = open_cache(tmp_path)
    assert cache.ids() == ["a.mp4", "c"]
    assert cache["a.mp4"].kept.tokens[0, 0] == 65504.0


def test_reading_gives_memory_of_its_own(tmp_path: Path) -> None:
    items = [make_item(name, seed=seed) for seed, name in enumerate("abc")]
    write_cache(tmp_path, *items)
    cache = open_cache(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            for item in items:
                got = cache[item.id]
                assert_same_item(got, item)
                got.kept.tokens.zero_()
                got.kept.coords.zero_()


def test_by_id_by_number_and_as_tensors(tmp_path: Path) -> None:
    items = [make_item(name, seed=seed) for seed, name in enumerate("abc")]
    write_cache(tmp_path, *items, max_shard_items=2)
    cache = open_cache(tmp_path)
    assert len(parts(tmp_path)) == 2
    assert len(cache) == 3 and "b" in cache and "z" not in cache
    assert_same_item(cache[1], cache["b"])
    assert_same_item(cache[-1], items[2])
    tensors = cache.tensors("c")
    assert set(tensors) == {"tokens", "coords", "mass", "source", "times"}
    assert tensors["tokens"].equal(items[2].kept.tokens)
    with pytest.raises(IndexError):
        cache[3]
    with pytest.raises(CacheError, match="has no item 'bb'; the nearest is b; "):
        cache["bb"]


def test_loads_in_forked_and_pickled_workers(tmp_path: Path) -> None:
    items = [make_item(str(n), seed=n) for n in range(12)]
    write_cache(tmp_path, *items, max_shard_items=5)
    cache = open_cache(tmp_path)
    cache[0]  # a file that is open before the fork
    loader = torch.utils.data.DataLoader(cache, batch_size=None, num_workers=2, multiprocessing_context="fork")
    for reader in (loader, pickle.loads(pickle.dumps(cache))):
        for got, want in zip(reader, items, strict=True):
            assert_same_item(got, want)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = os.fsdecode(b"clips/\xff.mp4")
    write_cache(tmp_path, make_item("clips/\\xff.mp4", path=path))
    assert open_cache(tmp_path)["clips/\\xff.mp4"].path == "clips/\\xff.mp4"
