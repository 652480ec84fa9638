"""Blobs that are used where they lie in the file: found where pyarrow finds them, and never shared by two readers."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cache_common import assert_same_item, make_item, write_cache

from tokcli.cache import open_cache
from tokcli.cache.pages import value_places
from tokcli.errors import IntegrityError
from tokcli.types import EncodedItem

PLAIN = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}


def places_of(values: list[bytes | None], *, nullable: bool = True, **options: Any) -> tuple[memoryview, Any]:
    """A file with one column of these values, and their places in it."""
    sink = io.BytesIO()
    schema = pa.schema([pa.field("blob", pa.binary(), nullable=nullable)])
    pq.write_table(pa.table({"blob": pa.array(values, pa.binary())}, schema=schema), sink, **PLAIN | options)
    metadata = pq.read_metadata(io.BytesIO(sink.getvalue()))
    data = memoryview(sink.getvalue())
    return data, value_places(data, metadata.row_group(0).column(0), metadata.schema.column(0))


def wide_items(count: int, tokens: int = 40) -> list[EncodedItem]:
    """Items whose tokens take 80 KiB each, more than a page of memory."""
    items = [make_item(str(number), tokens, seed=number) for number in range(count)]
    for number, item in enumerate(items):
        generator = torch.Generator().manual_seed(number)
        object.__setattr__(item.kept, "tokens", torch.randn(tokens, 1024, generator=generator).half())
    return items


@pytest.mark.parametrize("page_bytes", [1 << 30, 50])
@pytest.mark.parametrize(
    ("nullable", "nulls"), [(False, "none"), (True, "none"), (True, "all"), (True, "some"), (True, "runs")]
)
def test_values_are_where_pyarrow_finds_them(nullable: bool, page_bytes: int, nulls: str) -> None:
    pick = np.random.default_rng(0)
    values: list[bytes | None] = [bytes(pick.integers(0, 256, size)) for size in pick.integers(0, 40, 300)]
    if nulls != "none":
        there = {"all": [False] * 300, "some": pick.random(300) < 0.5, "runs": np.arange(300) % 100 < 60}[nulls]
        values = [value if keep else None for value, keep in zip(values, there)]
    data, places = places_of(values, nullable=nullable, data_page_size=page_bytes, write_batch_size=7)
    assert [None if place is None else bytes(data[slice(*place)]) for place in places] == values


@pytest.mark.parametrize(
    "options", [{"compression": "zstd"}, {"use_dictionary": True}, {"data_page_version": "2.0"}], ids=str
)
def test_nothing_is_told_of_other_pages(options: dict[str, Any]) -> None:
    assert places_of([b"abc"] * 20, **options)[1] is None


def test_nothing_is_told_of_pages_that_make_no_sense() -> None:
    """A changed byte of header or lengths gives nothing, or places within the file: never an error."""
    values = [b"abc", None, b"", b"defghi"] * 3
    data, places = places_of(values)
    metadata = pq.read_metadata(io.BytesIO(data))
    chunk, column = metadata.row_group(0).column(0), metadata.schema.column(0)
    end = chunk.data_page_offset + chunk.total_compressed_size
    told = 0
    for at in range(chunk.data_page_offset, end):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            found = value_places(memoryview(changed), chunk, column)
            told += found is not None
            assert found is None or all(p is None or 0 < p[0] <= p[1] <= end for p in found)
    assert places is not None and told > 0  # bytes of values may be anything


def test_what_is_done_with_an_item_is_not_seen_by_the_next_reader(tmp_path: Path) -> None:
    items = wide_items(5)
    write_cache(tmp_path, *items)
    cache = open_cache(tmp_path)
    for _ in range(3):
        for item in items:
            got = cache[item.id]
            assert_same_item(got, item)
            for tensor in (got.kept.tokens, got.kept.coords, got.kept.mass, got.kept.source):
                tensor.zero_()
            assert_same_item(cache[item.id], item)
    assert_same_item(open_cache(tmp_path)["0"], items[0])


def test_items_outlive_the_cache_and_its_files(tmp_path: Path) -> None:
    items = wide_items(3)
    write_cache(tmp_path / "cache", *items)
    cache = open_cache(tmp_path / "cache")
    kept = [cache[0], cache[0]]
    shutil.rmtree(tmp_path / "cache")
    kept += [cache[0], cache[1]]  # a shard that is open is read to the end
    del cache
    for got, item in zip(kept, [*[items[0]] * 3, items[1]], strict=True):
        assert_same_item(got, item)


def test_no_files_stay_open_for_items(tmp_path: Path) -> None:
    write_cache(tmp_path, *wide_items(4), max_shard_items=1)
    before = len(list(Path("/proc/self/fd").iterdir()))
    kept = list(open_cache(tmp_path))
    assert len(kept) == 4 and len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_shard_that_shrinks_while_it_is_open(tmp_path: Path) -> None:
    write_cache(tmp_path, *wide_items(3))
    cache = open_cache(tmp_path)
    cache["0"]
    (shard,) = (tmp_path / "data").iterdir()
    os.truncate(shard, 4096)
    for item_id in ("1", "2"):
        with pytest.raises(IntegrityError, match="4096 bytes are left of"):
            cache[item_id]


def test_reading_without_checks(tmp_path: Path) -> None:
    items = wide_items(3)
    write_cache(tmp_path, *items)
    for got, item in zip(open_cache(tmp_path, check=False), items, strict=True):
        assert_same_item(got, item)
    (shard,) = (tmp_path / "data").iterdir()
    content = shard.read_bytes()
    at = content.index(items[1].kept.tokens.view(torch.uint8).numpy().tobytes()) + 5
    shard.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(IntegrityError, match="its bytes are not those that were written"):
        open_cache(tmp_path)["1"]
    trusted = open_cache(tmp_path, check=False)["1"].kept.tokens.view(torch.uint8)
    assert int((trusted != items[1].kept.tokens.view(torch.uint8)).sum()) == 1


def test_damage_behind_an_item_does_not_keep_it_from_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small columns of several row groups are read at once by who reads in order."""
    monkeypatch.setattr("tokcli.cache.shard.ROW_GROUP_ROWS", 1)
    items = wide_items(6)
    write_cache(tmp_path, *items)
    (shard,) = (tmp_path / "data").iterdir()
    group = pq.read_metadata(shard).row_group(4)
    path = next(group.column(n) for n in range(group.num_columns) if group.column(n).path_in_schema == "path")
    content = bytearray(shard.read_bytes())
    content[path.data_page_offset + path.total_compressed_size - 1] ^= 1
    shard.write_bytes(content)
    cache = open_cache(tmp_path)
    for number in (0, 1, 2, 3, 5):
        assert_same_item(cache[number], items[number])
    with pytest.raises(IntegrityError, match="reading 4"):
        cache["4"]


def test_large_rows_lie_where_their_numbers_may(tmp_path: Path) -> None:
    """And the bytes between row groups that bring them there are none of other readers' business."""
    items = wide_items(120)
    write_cache(tmp_path, *items)
    (shard,) = (tmp_path / "data").iterdir()
    content = memoryview(shard.read_bytes())
    metadata = pq.read_metadata(shard)
    last = metadata.num_columns - 1
    chunks = [metadata.row_group(group).column(last) for group in range(metadata.num_row_groups)]
    places = [value_places(content, chunk, metadata.schema.column(last)) for chunk in chunks]
    aligned = [place[0] % 4 == 0 for of_group in places for place in of_group or () if place is not None]
    # The length of a page's checksum is one of sixteen times another than was expected; of these three it is not.
    assert metadata.num_row_groups == 3 and aligned == [True] * 120
    rows = duckdb.sql(f"SELECT id, tokens FROM '{shard}' ORDER BY file_row_number").fetchall()
    assert rows == [(item.id, item.kept.tokens.view(torch.uint8).numpy().tobytes()) for item in items]
