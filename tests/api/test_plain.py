"""Rows as other readers of Parquet give them are the tensors that tokcli reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from cache_common import assert_same_item, make_item, make_manifest, write_cache

import tokcli
from tokcli.errors import CacheError, IntegrityError
from tokcli.types import TokenSet, View

MASS = torch.arange(1.0, 21.0)


@pytest.fixture(scope="module", params=["float16", "bfloat16", "float32"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Items with metadata, mass, assignment and stats, one of them empty; a shard of several row groups."""
    path, dtype = tmp_path_factory.mktemp("plain") / "cache", getattr(torch, request.param)
    items = [
        make_item("a.mp4", dtype=dtype, metadata={"label": "cat"}),
        make_item("b.mp4", kept=20, seed=1, dtype=dtype, mass=MASS, assignment=torch.arange(512).int() % 20),
        make_item("empty.mp4", kept=0, dtype=dtype, stats={"drop_ratio": np.float32([0, 1])}),
    ]
    write_cache(path, *items, manifest=make_manifest(tokens_dtype=request.param))
    return path


def check(row: Any, cache: tokcli.TokenCache) -> None:
    assert_same_tensors(tokcli.decode_row(row), cache.tensors(row["id"]))
    assert_same_item(tokcli.decode_rows([row]), cache[row["id"]])


def assert_same_tensors(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> None:
    assert got.keys() == want.keys()
    for name in want:
        assert got[name].dtype == want[name].dtype and torch.equal(got[name], want[name]), name


def test_rows_of_pyarrow(folder: Path) -> None:
    rows = pq.read_table(folder / "data").to_pylist()
    assert len(rows) == 3
    for row in rows:
        check(row, tokcli.open_cache(folder))


def test_rows_of_pandas(folder: Path) -> None:
    pytest.importorskip("pandas")
    for _, row in pq.read_table(folder / "data").to_pandas().iterrows():
        assert_same_tensors(tokcli.decode_row(row), tokcli.open_cache(folder).tensors(row["id"]))


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_of_datasets(folder: Path, tmp_path: Path, streaming: bool) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.load_dataset(
        "parquet",
        data_files=str(folder / "data" / "*.parquet"),
        split="train",
        cache_dir=str(tmp_path),
        streaming=streaming,
    )
    seen = []
    for row in rows:
        check(row, tokcli.open_cache(folder))
        seen.append(row["id"])
    assert seen == ["a.mp4", "b.mp4", "empty.mp4"]
    decoded = rows.map(lambda row: {"norm": float(tokcli.decode_row(row)["tokens"].float().norm())})
    assert [row["norm"] > 0 for row in decoded] == [True, True, False]


def test_levels_are_parted(tmp_path: Path) -> None:
    kept = make_item().kept
    levels = torch.randn(len(kept), 2, kept.tokens.shape[1]).half()
    deep = TokenSet(kept.tokens, kept.coords, kept.mass, kept.source, deepstack=levels)
    model = {"model": "x", "fingerprint": "f", "deepstack_levels": 2}
    write_cache(tmp_path, replace(make_item(), kept=deep), manifest=make_manifest(model=model))
    (row,) = pq.read_table(tmp_path / "data").to_pylist()
    check(row, tokcli.open_cache(tmp_path))


def test_parts_of_a_long_item_are_put_together(tmp_path: Path) -> None:
    count, width = 3000, 1024
    rows = torch.arange(count)
    coords = torch.stack([rows * 0, rows // 128, rows // 16 % 8, rows % 16], 1).int()
    kept = TokenSet(torch.randn(count, width), coords, torch.ones(count), rows)
    item = replace(make_item(), kept=kept, views=(View("frames", (24, 8, 16)),), source_tokens=3072)
    write_cache(tmp_path, item, manifest=make_manifest(tokens_dtype="float32"))
    stored = pq.read_table(tmp_path / "data").to_pylist()
    assert len(stored) == 3
    assert_same_item(tokcli.decode_rows(reversed(stored)), tokcli.open_cache(tmp_path)[0])
    assert torch.equal(torch.cat([tokcli.decode_row(row)["tokens"] for row in stored]), kept.tokens)
    with pytest.raises(IntegrityError, match="has 3 rows, got 2"):
        tokcli.decode_rows(stored[:2])
    with pytest.raises(IntegrityError, match="another item or place"):
        tokcli.decode_rows([stored[0], stored[1], stored[1]])


def test_a_row_that_lacks_something_is_an_error(folder: Path) -> None:
    row = pq.read_table(folder / "data").to_pylist()[0]
    with pytest.raises(CacheError, match="lacks dtype, tokens; read these columns too"):
        tokcli.decode_row({name: value for name, value in row.items() if name not in ("dtype", "tokens")})
    with pytest.raises(IntegrityError, match=r"a\.mp4: tokens has .* bytes, 20 tokens need"):
        tokcli.decode_row({**row, "tokens": row["tokens"][:-2]})
    with pytest.raises(CacheError, match="got none"):
        tokcli.decode_rows([])
