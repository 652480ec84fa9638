"""Tokens with DeepStack levels: stored as one row, given back apart, and refused where they can't belong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cache_common import HIDDEN, assert_same_item, make_item, make_manifest, write_cache

from tokcli.cache import Manifest, open_cache, verify_cache
from tokcli.cache.codecs import codec_of
from tokcli.cache.decode import decode_item
from tokcli.cache.measure import read_back
from tokcli.cache.parquet import columns_of
from tokcli.cache.row import StoredRow
from tokcli.errors import IntegrityError, UsageError
from tokcli.types import EncodedItem

LEVELS = 3


def stacked_manifest(levels: int = LEVELS, **changes: str) -> Manifest:
    model = {"model": "m", "fingerprint": "f" * 64, "deepstack_levels": levels}
    return make_manifest(model=model, **changes)


def stacked_item(kept: int = 20, *, dtype: torch.dtype = torch.float16, levels: int = LEVELS) -> EncodedItem:
    item = make_item(kept=kept, dtype=dtype)
    deepstack = torch.randn(kept, levels, HIDDEN, generator=torch.Generator().manual_seed(1)).to(dtype)
    return replace(item, kept=replace(item.kept, deepstack=deepstack))


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("chunk_bytes", [1 << 20, 300], ids=["one-row", "many-rows"])
@pytest.mark.parametrize("kept", [0, 1, 20])
def test_every_bit_comes_back(tmp_path: Path, name: str, chunk_bytes: int, kept: int) -> None:
    item = stacked_item(kept, dtype=getattr(torch, name))
    write_cache(tmp_path, item, manifest=stacked_manifest(tokens_dtype=name), chunk_bytes=chunk_bytes)
    got = open_cache(tmp_path)["a.mp4"]
    assert_same_item(got, item)
    assert got.kept.deepstack is not None and item.kept.deepstack is not None
    assert torch.equal(got.kept.deepstack, item.kept.deepstack)
    assert got.kept.levels == LEVELS
    assert not verify_cache(tmp_path)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "int8", "int8c", "int4", "fp8"])
@pytest.mark.parametrize("levels", [0, LEVELS])
@pytest.mark.parametrize("kept", [0, 20])
def test_what_a_cache_would_give_is_known_without_writing_one(
    tmp_path: Path, name: str, levels: int, kept: int
) -> None:
    item = stacked_item(kept, levels=levels) if levels else make_item(kept=kept)
    manifest = stacked_manifest(levels, tokens_dtype=name)
    write_cache(tmp_path, item, manifest=manifest, chunk_bytes=300)
    got, made = open_cache(tmp_path)["a.mp4"].kept, read_back(item, codec_of(name), chunk_bytes=300).kept
    assert got.tokens.dtype == made.tokens.dtype
    assert torch.equal(got.tokens, made.tokens)
    assert (got.deepstack is None) == (made.deepstack is None) == (levels == 0)
    if got.deepstack is not None and made.deepstack is not None:
        assert torch.equal(got.deepstack, made.deepstack)


def test_a_row_is_the_token_and_then_its_levels(tmp_path: Path) -> None:
    item = stacked_item(2)
    write_cache(tmp_path, item, manifest=stacked_manifest())
    row = pq.read_table(next((tmp_path / "data").glob("*.parquet"))).to_pylist()[0]
    assert (row["hidden_size"], row["deepstack_levels"]) == ((1 + LEVELS) * HIDDEN, LEVELS)
    stored = torch.frombuffer(bytearray(row["tokens"]), dtype=torch.float16).view(2, 1 + LEVELS, HIDDEN)
    assert item.kept.deepstack is not None
    assert torch.equal(stored[:, 0], item.kept.tokens)
    assert torch.equal(stored[:, 1:], item.kept.deepstack)


def test_other_caches_have_no_such_column(tmp_path: Path) -> None:
    write_cache(tmp_path, make_item())
    assert "deepstack_levels" not in pq.read_schema(next((tmp_path / "data").glob("*.parquet"))).names


@pytest.mark.parametrize("levels", [0, 2])
def test_levels_must_be_those_of_the_cache(tmp_path: Path, levels: int) -> None:
    with pytest.raises(
        UsageError, match=rf"a\.mp4 has 3 DeepStack levels, this cache is for {levels}; use a new cache"
    ):
        write_cache(tmp_path, stacked_item(), manifest=stacked_manifest(levels))


def test_levels_count_when_float16_is_too_small(tmp_path: Path) -> None:
    item = stacked_item(dtype=torch.float32)
    assert item.kept.deepstack is not None
    item.kept.deepstack[3, 1, 2] = 70000.0
    with pytest.raises(UsageError, match="reach 70000, float16 ends at 65504"):
        write_cache(tmp_path, item, manifest=stacked_manifest(tokens_dtype="float16"))


@pytest.mark.parametrize("levels", [-1, 4])
def test_levels_that_do_not_divide_the_width_are_damage(tmp_path: Path, levels: int) -> None:
    write_cache(tmp_path, stacked_item(), manifest=stacked_manifest())
    table = pq.read_table(next((tmp_path / "data").glob("*.parquet"))).drop_columns("deepstack_levels")
    columns = columns_of(table.append_column("deepstack_levels", pa.array([levels], pa.int32())))
    problem = StoredRow(columns, 0).lengths_problem()
    assert problem == f"32 numbers per token can't be a token and {levels} levels"
    with pytest.raises(IntegrityError, match="can't be a token"):
        decode_item(iter([StoredRow(columns, 0)]))
