"""Bytes that are not those written are told, by the reader and by ``verify_cache``, never returned."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cache_common import make_item, make_manifest, parts, write_cache

from tokcli.cache import CacheWriter, ErrorRow, open_cache, verify_cache
from tokcli.cache.schema import BLOBS
from tokcli.cache.shard import ShardWriter
from tokcli.errors import CacheError, IntegrityError

MANIFEST = make_manifest()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two items of several rows, with every blob, and a failed one."""
    path = tmp_path / "cache"
    with CacheWriter(path, MANIFEST, chunk_bytes=160) as writer:
        for seed, name in enumerate("ab"):
            assignment = torch.randint(-1, 30, (512,)).int()
            writer.write(make_item(name, 30, seed=seed, mass=torch.rand(30) + 1, assignment=assignment))
        writer.fail(ErrorRow("c", "clips/c", "decode", "MediaError", "broken"))
        assert writer.finish(["a", "b", "c"]) == []
    assert verify_cache(path) == []
    return path


def only_shard(cache: Path, table: str = "data") -> Path:
    (name,) = parts(cache, table)
    return cache / table / name


def flip(path: Path, offset: int) -> None:
    """Change one bit in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("column", ["tokens", "coords", "source", "mass", "assignment", "id", "kept_tokens", "times"])
def test_a_flipped_bit_in_a_page(cache: Path, column: str) -> None:
    shard = only_shard(cache)
    group = pq.ParquetFile(shard).metadata.row_group(0)
    chunks = [group.column(number) for number in range(group.num_columns)]
    (chunk,) = (chunk for chunk in chunks if chunk.path_in_schema.split(".")[0] == column)
    flip(shard, chunk.data_page_offset + chunk.total_compressed_size - 1)
    pq.read_table(shard)  # Parquet readers that check nothing see nothing
    with pytest.raises(IntegrityError, match=r"part-\d{6}-[0-9a-f]{8}.parquet is damaged.*CRC") as caught:
        list(open_cache(cache))
    assert "\n" not in str(caught.value)
    whats = [problem.what for problem in verify_cache(cache)]
    assert any("its pages are not those that were written" in what for what in whats)
    assert any("CRC" in what for what in whats)
    assert {problem.file for problem in verify_cache(cache)} == {f"data/{shard.name}"}


def test_the_item_in_the_damaged_page_is_named(tmp_path: Path) -> None:
    items = [make_item(name, 300, seed=seed) for seed, name in enumerate("xyz")]
    for item in items:  # 300 tokens of 4096 bytes: all in one page
        object.__setattr__(item.kept, "tokens", torch.randn(300, 2048).half())
    write_cache(tmp_path, *items)
    shard = only_shard(tmp_path)
    data = pq.ParquetFile(shard).metadata.row_group(0)
    flip(shard, data.column(data.num_columns - 1).data_page_offset + 1_800_000)
    cache = open_cache(tmp_path)
    assert len(cache["x"].kept) == len(cache["z"].kept) == 300
    with pytest.raises(IntegrityError, match="is damaged: row 0 of y: its bytes are not those that were written"):
        cache["y"]


@pytest.mark.parametrize("table", ["data", "errors"])
@pytest.mark.parametrize("keep", [0, 3, 0.5, -1])
def test_a_truncated_shard(cache: Path, table: str, keep: float) -> None:
    shard = only_shard(cache, table)
    size = shard.stat().st_size
    os.truncate(shard, int(keep * size) if 0 < keep < 1 else int(keep) % size)
    with pytest.raises(IntegrityError, match=f"{shard.name} is damaged"):
        open_cache(cache)
    assert [problem.file for problem in verify_cache(cache)] == [f"{table}/{shard.name}"]


def test_random_damage_is_never_returned(cache: Path, tmp_path: Path) -> None:
    """Whatever byte changes: verify tells, and a reader gives the right tokens or an error."""
    pick = random.Random(0)
    sound = {item.id: item.kept.tokens for item in open_cache(cache)}
    name = only_shard(cache).name
    for _ in range(60):
        copy = tmp_path / "copy"
        shutil.copytree(cache, copy, dirs_exist_ok=True)
        shard = copy / "data" / name
        flip(shard, pick.randrange(shard.stat().st_size))
        assert verify_cache(copy) != []
        try:
            for item in open_cache(copy):
                assert item.kept.tokens.equal(sound[item.id])
        except CacheError:
            pass


def test_a_shard_that_is_gone_while_open(cache: Path) -> None:
    opened = open_cache(cache)
    only_shard(cache).unlink()
    with pytest.raises(CacheError, match="is gone; it was there when the cache was opened"):
        opened["a"]
    # The counts in _SUCCESS keep a lost shard from going unnoticed.
    (problem,) = verify_cache(cache)
    assert problem.file == "_SUCCESS"
    assert "the shards hold {'items': 0, 'failed': 1}" in problem.what


def forged(cache: Path, change: Callable[[dict[str, list[object]]], None]) -> None:
    """Replace the data shard by one whose checksums hold and whose content was changed."""
    table = pq.read_table(only_shard(cache))
    columns = table.to_pydict()
    change(columns)
    only_shard(cache).unlink()
    forger = ShardWriter(cache / "data", table.schema, 1)
    constants = {name: forger._constants.pop(name) for name in ("sequence", "configuration")}
    for row in pa.table(columns, schema=table.schema).to_pylist():
        blobs = {name: np.frombuffer(row[name], np.uint8) for name in BLOBS if row[name] is not None}
        forger.add(constants | row | blobs)
    forger.commit()


def put(column: str, row: int, value: object) -> Callable[[dict[str, list[object]]], None]:
    def change(columns: dict[str, list[object]]) -> None:
        columns[column][row] = value

    return change


def put_integer(column: str, row: int, place: int, value: int) -> Callable[[dict[str, list[object]]], None]:
    def change(columns: dict[str, list[object]]) -> None:
        content = bytearray(columns[column][row])  # type: ignore[arg-type]
        content[4 * place : 4 * place + 4] = value.to_bytes(4, "little", signed=True)
        columns[column][row] = bytes(content)

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (put("num_tokens", 1, 9), "row 1 of a: tokens has 160 bytes, 9 tokens need 144"),
        (put("tokens", 0, b""), "row 0 of a: tokens has 0 bytes, 10 tokens need 160"),
        (put("mass", 0, b"1234"), "row 0 of a: mass has 4 bytes, 10 tokens need 40"),
        (put("dtype", 0, "float8"), "row 0 of a: tokens stored as 'float8', which this tokcli does not know"),
        (put("kept_tokens", 0, 31), "a has 30 of 31 tokens"),
        (put("num_chunks", 0, 4), "a has 3 of 4 rows"),
        (put("chunk", 1, 2), "row 2 of a is out of place"),
        (put("id", 2, "b"), "row 2 of b is out of place"),
        (put("source_blake3", 0, "ab"), "a has no hash of its source"),
        (put("sequence", 0, 2), "a row has another sequence than its shard"),
        (put("configuration", 0, "0"), "a row has another configuration than its shard"),
        (put_integer("coords", 0, 0, 1), "row 0 of a: coords name a view that does not exist, or are negative"),
        (put_integer("coords", 0, 1, -1), "row 0 of a: coords name a view that does not exist, or are negative"),
        (put_integer("coords", 0, 3, 17), "row 0 of a: coords lie outside the view's grid"),
        (put_integer("coords", 0, 1, 3), "row 0 of a: coords are not in (view, t, y, x) order"),
        (put_integer("coords", 2, 1, 0), "row 2 of a: coords are not in (view, t, y, x) order"),
        (put_integer("source", 0, 0, 512), "row 0 of a: source points outside the item's 512 tokens"),
        (put_integer("source", 0, 0, -1), "row 0 of a: source points outside the item's 512 tokens"),
        (put_integer("assignment", 0, 0, 30), "row 0 of a: assignment points outside the 30 kept tokens"),
        (put_integer("mass", 0, 0, -1), "row 0 of a: mass is negative or not a number"),
    ],
)
def test_rows_that_contradict_themselves(
    cache: Path, change: Callable[[dict[str, list[object]]], None], told: str
) -> None:
    forged(cache, change)
    assert told in [problem.what for problem in verify_cache(cache)]


def test_success_that_disagrees(cache: Path) -> None:
    (cache / "_SUCCESS").write_text(json.dumps({"items": 3, "failed": 1}))
    (problem,) = verify_cache(cache)
    assert problem.what.startswith("tells {'items': 3, 'failed': 1}, the shards hold {'items': 2, 'failed': 1}")


def test_files_that_globs_would_read(cache: Path) -> None:
    shutil.copy(only_shard(cache), cache / "data" / "copy.parquet")
    assert len(open_cache(cache)) == 2
    (problem,) = verify_cache(cache)
    assert (problem.file, problem.what) == ("data/copy.parquet", "is not a shard of this cache; move it elsewhere")


def test_verify_of_no_cache(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="is not a token cache"):
        verify_cache(tmp_path)
