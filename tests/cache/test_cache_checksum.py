"""A row is trusted by its own checksum, also where it has left its page, its shard and tokcli."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from blake3 import blake3
from cache_common import assert_same_item, make_item, parts, write_cache

from tokcli.cache import decode_row, decode_rows, open_cache, verify_cache
from tokcli.cache.layout import shard_name
from tokcli.cache.schema import BLOBS, CHECKED, column_types, writer_options
from tokcli.errors import IntegrityError

Row = dict[str, Any]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An item of two rows with every blob and a still, which has neither rates nor masses."""
    video = make_item(
        "a",
        30,
        seed=1,
        mass=torch.rand(30, generator=torch.Generator().manual_seed(0)) + 1,
        assignment=torch.arange(512).int() % 30,
        stats={"drop_ratio": np.array([0.5, 0.25], np.float32)},
        metadata={"label": "cat"},
    )
    rates: dict[str, Any] = {"source_fps": None, "sample_fps": None, "seconds_per_step": None, "duration_seconds": 0}
    still = make_item("b", 5, kind="image", metadata={"label": "dog"}, **rates)
    write_cache(tmp_path / "cache", video, still, chunk_bytes=20 * 16)
    return tmp_path / "cache"


def rows_of(cache: Path) -> list[Row]:
    (name,) = parts(cache)
    return pq.read_table(cache / "data" / name).to_pylist()


def by_the_specification(row: Row) -> int:
    """The checksum as SPEC.md describes it, by the standard library alone."""
    blobs = ("assignment", "mass", "source", "coords", "tokens")
    lists = {"times": "d", "indices": "q"}
    content = {name: row[name] for name in blobs}
    for name, letter in lists.items():
        content[name] = None if row[name] is None else struct.pack(f"<{len(row[name])}{letter}", *row[name])
    stats = [struct.pack(f"<{len(stat['values'])}d", *stat["values"]) for stat in row["stats"] or ()]
    head = {name: row[name] for name in CHECKED if name in row}
    head |= {name: None if value is None else len(value) for name, value in content.items()}
    head["stats"] = [[stat["name"], stat["dtype"], len(raw)] for stat, raw in zip(row["stats"] or (), stats)]
    text = json.dumps(head, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    parts = [text, *(content[name] for name in lists), *stats, *(content[name] for name in blobs)]
    return zlib.crc32(b"".join(part or b"" for part in parts))


def test_it_is_what_the_specification_says(cache: Path) -> None:
    rows = rows_of(cache)
    assert len(rows) == 3
    assert [row["row_crc32"] for row in rows] == [by_the_specification(row) for row in rows]


def test_rows_out_of_other_programs_are_trusted(cache: Path) -> None:
    (name,) = parts(cache)
    table = pq.read_table(cache / "data" / name)
    frame = table.to_pandas()
    for rows in (table.to_pylist(), [frame.iloc[number] for number in range(len(frame))]):
        for item_id in "ab":
            own = [row for row in rows if row["id"] == item_id]
            assert_same_item(decode_rows(own), open_cache(cache)[item_id])
            for row in own:
                decode_row(row)


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1])
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return [*value[:-1], changed(value[-1])]
    if isinstance(value, dict):
        return {**value, max(value): changed(value[max(value)])}
    return value + 1


@pytest.mark.parametrize("name", sorted({*CHECKED, *BLOBS, "times", "indices", "stats"} - {"deepstack_levels"}))
def test_any_other_value_is_refused(cache: Path, name: str) -> None:
    rows = [row for row in rows_of(cache) if row["id"] == "a"]
    rows[0] = rows[0] | {name: changed(rows[0][name])}
    with pytest.raises(IntegrityError):
        decode_rows(rows)
    if name not in ("chunk", "num_chunks"):
        with pytest.raises(IntegrityError):
            decode_row(rows[0])


@pytest.mark.parametrize("name", ["sequence", "meta_label"])
def test_what_is_not_the_rows_own_may_change(cache: Path, name: str) -> None:
    rows = [row | {name: changed(row[name])} for row in rows_of(cache) if row["id"] == "a"]
    assert len(decode_rows(rows).kept) == 30


def rewritten(cache: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Put another table in the place of the shard, in pages that are as sound as its footer."""
    (name,) = parts(cache)
    path = cache / "data" / name
    table = change(pq.read_table(path))
    path.unlink()
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **writer_options(table.schema))
    content = bytes(sink.getvalue())
    length = int.from_bytes(content[-8:-4], "little") + 8
    (cache / "data" / shard_name(1, blake3(content[-length:]).hexdigest()[:8])).write_bytes(content)


def test_a_row_that_another_program_changed_in_a_sound_page(cache: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        tokens = table["tokens"].to_pylist()
        tokens[1] = changed(tokens[1])
        return table.set_column(table.column_names.index("tokens"), table.schema.field("tokens"), [tokens])

    rewritten(cache, change)
    with pytest.raises(IntegrityError, match="row 1 of a: its bytes are not those that were written"):
        open_cache(cache)["a"]
    assert len(open_cache(cache)["b"].kept) == 5
    assert any("row 1 of a: its bytes" in problem.what for problem in verify_cache(cache))


def test_shards_without_the_column_are_read(cache: Path) -> None:
    """As they were written before there was one; and old readers ask for no more than this."""
    want = [open_cache(cache)[item_id] for item_id in "ab"]
    rewritten(cache, lambda table: table.drop_columns(["row_crc32"]))
    assert "row_crc32" not in column_types("data").names
    for got, item in zip(open_cache(cache), want, strict=True):
        assert_same_item(got, item)
