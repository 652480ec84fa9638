"""Blocks have the tokens that their items have, whatever way they come, and nothing that was not written."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from cache_common import make_item, make_manifest, write_cache

import tokcli.cache.shard
from tokcli.cache import Cache, CacheWriter, open_cache
from tokcli.cache.bulk import group_blobs
from tokcli.cache.page import is_whole
from tokcli.errors import IntegrityError
from tokcli.types import EncodedItem

WAYS = [{"check": check, "memory_map": memory_map} for check in (True, False) for memory_map in (True, False)]


def items_of(kind: str) -> list[EncodedItem]:
    """Few tokens that share row groups, some none at all; or so many that each has several rows."""
    if kind == "small":
        return [make_item(str(number), number % 5, seed=number) for number in range(600)]
    items = [make_item(str(number), 40, seed=number) for number in range(3)]
    return [
        replace(item, kept=replace(item.kept, tokens=torch.randn(40, 80_000).half(), coords=item.kept.coords))
        for item in items
    ]


def assert_blocks_are_items(cache: Cache, **way: bool) -> int:
    """All of each item's tokens in their order; gives how many blocks there were."""
    parts: dict[str, dict[str, list[torch.Tensor]]] = {item_id: {} for item_id in cache.ids()}
    blocks = list(cache.blocks(**way))
    for block in blocks:
        assert len(block.ids) == len(block.starts) - 1
        assert len(block) == len(block.tokens) == block.starts[-1]
        for item_id, first, end in zip(block.ids, block.starts, block.starts[1:]):
            for name in ("tokens", "coords", "source", "deepstack"):
                if (tensor := getattr(block, name)) is not None:
                    parts[item_id].setdefault(name, []).append(tensor[first:end])
    for item in cache:
        for name in ("tokens", "coords", "source", "deepstack"):
            whole = getattr(item.kept, name)
            if whole is None:
                assert name not in parts[item.id]
            else:
                got = torch.cat(parts[item.id][name])
                assert got.dtype == whole.dtype
                assert torch.equal(got, whole)
    return len(blocks)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each row group whether it was read past pyarrow."""
    seen: list[bool] = []

    def seen_blobs(*arguments: Any, **named: Any) -> Any:
        blobs = group_blobs(*arguments, **named)
        seen.append(blobs is not None)
        return blobs

    monkeypatch.setattr("tokcli.cache.blocks.group_blobs", seen_blobs)
    return seen


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(("kind", "blocks"), [("small", 5), ("large", 6)])
def test_blocks_are_row_groups(tmp_path: Path, kind: str, blocks: int, way: dict[str, bool], fast: list[bool]) -> None:
    write_cache(tmp_path / "c", *items_of(kind))
    assert assert_blocks_are_items(open_cache(tmp_path / "c"), **way) == blocks
    assert fast == [True] * blocks


@pytest.mark.parametrize("codec", ["bfloat16", "float32", "int8", "int8c", "int4", "fp8"])
def test_codecs(tmp_path: Path, codec: str, fast: list[bool]) -> None:
    with CacheWriter(tmp_path / "c", make_manifest(tokens_dtype=codec)) as writer:
        for number in range(20):
            writer.write(make_item(str(number), number, seed=number, dtype=torch.float32))
    assert assert_blocks_are_items(open_cache(tmp_path / "c")) == 1
    assert fast == [True]


def test_deepstack_levels(tmp_path: Path, fast: list[bool]) -> None:
    manifest = make_manifest(model={"model": "m", "fingerprint": "f" * 64, "deepstack_levels": 2})
    with CacheWriter(tmp_path / "c", manifest) as writer:
        for number in range(3):
            item = make_item(str(number), 5, seed=number)
            writer.write(replace(item, kept=replace(item.kept, deepstack=torch.randn(5, 2, 8).half())))
    assert assert_blocks_are_items(open_cache(tmp_path / "c")) == 1
    assert fast == [True]


def test_what_was_replaced_or_not_selected_is_left_out(tmp_path: Path) -> None:
    for seed in (0, 1):
        with CacheWriter(tmp_path / "c", make_manifest()) as writer:
            for number in range(3 * seed, 6):
                writer.write(make_item(str(number), 7, seed=10 * seed + number))
    cache = open_cache(tmp_path / "c")
    assert_blocks_are_items(cache)
    assert [block.ids for block in cache.blocks()] == [("0", "1", "2"), ("3", "4", "5")]
    assert repr(next(cache.blocks())) == "TokenBlock(21 tokens of 3 items)"
    some = cache.select(["1", "4", "5"])
    assert_blocks_are_items(some)
    assert [block.ids for block in some.blocks()] == [("1",), ("4", "5")]
    assert list(cache.select([]).blocks()) == []


@pytest.mark.parametrize("options", [{"compression": "zstd"}, {"use_dictionary": True}, {"data_page_size": 1}], ids=str)
def test_other_layouts(
    tmp_path: Path, options: dict[str, Any], fast: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = tokcli.cache.shard.writer_options
    monkeypatch.setattr(tokcli.cache.shard, "writer_options", lambda schema: usual(schema) | options)
    for kind in ("small", "large"):
        write_cache(tmp_path / kind, *items_of(kind))
        assert_blocks_are_items(open_cache(tmp_path / kind))
    assert not all(fast)


def test_an_item_whose_rows_come_one_by_one_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cache(tmp_path / "c", *items_of("large"))
    monkeypatch.setattr("tokcli.cache.blocks.group_blobs", lambda *_, **__: None)
    asked: list[Any] = []
    item = Cache.__getitem__

    def counted(self: Cache, key: Any) -> EncodedItem:
        asked.append(key)
        return item(self, key)

    monkeypatch.setattr(Cache, "__getitem__", counted)
    assert len(list(open_cache(tmp_path / "c").blocks())) == 6
    assert asked == ["0", "1", "2"]


@pytest.mark.parametrize("memory_map", [True, False])
@pytest.mark.parametrize("column", ["tokens", "coords", "source"])
def test_a_flipped_bit_is_told_of_its_item(tmp_path: Path, column: str, memory_map: bool) -> None:
    write_cache(tmp_path / "c", *(make_item(name, 50, seed=seed) for seed, name in enumerate("xyz")))
    (shard,) = (tmp_path / "c" / "data").glob("*.parquet")
    group = pq.ParquetFile(shard).metadata.row_group(0)
    (chunk,) = (c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column)
    content = bytearray(shard.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size - 1] ^= 1
    shard.write_bytes(content)
    cache = open_cache(tmp_path / "c")
    with pytest.raises(
        IntegrityError, match=rf"{shard.name} is damaged: row 0 of z: its bytes are not those"
    ) as caught:
        list(cache.blocks(memory_map=memory_map))
    assert "\n" not in str(caught.value)
    (unchecked,) = cache.blocks(check=False, memory_map=memory_map)
    assert not torch.equal(getattr(unchecked, column)[100:], getattr(make_item("z", 50, seed=2).kept, column))


@pytest.mark.parametrize("memory_map", [True, False])
def test_a_file_that_became_shorter_is_damage(tmp_path: Path, memory_map: bool) -> None:
    write_cache(tmp_path / "c", *items_of("large"))
    (shard,) = (tmp_path / "c" / "data").glob("*.parquet")
    blocks = open_cache(tmp_path / "c").blocks(memory_map=memory_map)
    next(blocks)
    os.truncate(shard, 1000)
    with pytest.raises(IntegrityError, match=rf"{shard.name} is damaged, reading 0 \(.* are left"):
        next(blocks)


def test_tensors_may_be_written_to_and_hold_no_file_open(tmp_path: Path) -> None:
    write_cache(tmp_path / "c", *items_of("large"))
    (shard,) = (tmp_path / "c" / "data").glob("*.parquet")
    content = shard.read_bytes()
    blocks = list(open_cache(tmp_path / "c").blocks(memory_map=True))
    assert not [file for file in psutil.Process().open_files() if file.path == str(shard)]
    for block in blocks:
        for tensor in (block.tokens, block.coords, block.source):
            tensor.fill_(0)
    assert shard.read_bytes() == content


def test_pages_of_other_kinds_are_not_taken_for_whole(tmp_path: Path) -> None:
    write_cache(tmp_path / "c", make_item("x", 50))
    (shard,) = (tmp_path / "c" / "data").glob("*.parquet")
    group = pq.ParquetFile(shard).metadata.row_group(0)
    chunk = group.column(group.num_columns - 1)
    end = chunk.data_page_offset + chunk.total_compressed_size
    page = torch.tensor(bytearray(shard.read_bytes()[chunk.data_page_offset : end]), dtype=torch.uint8).numpy()
    assert is_whole(page)
    changes: list[Callable[[bytearray], object]] = [
        lambda header: header.__setitem__(1, 2),  # an index page
        lambda header: header.__setitem__(0, 0x25),  # no kind
        lambda header: header.__setitem__(-1, header[-1] ^ 1),
        lambda header: header.__delitem__(slice(5, None)),
        lambda header: header.clear(),
    ]
    for change in changes:
        changed = bytearray(page.tobytes())
        change(changed)
        assert not is_whole(torch.tensor(list(changed), dtype=torch.uint8).numpy())
