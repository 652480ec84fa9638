"""Blobs are read straight from the file as pyarrow reads them, and nobody else sees what is done with them."""

from __future__ import annotations

import gc
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from cache_common import assert_same_item, make_item, write_cache

import tokcli.cache.files
import tokcli.cache.shard
from tokcli.cache import Cache, open_cache
from tokcli.cache.direct import DirectReader
from tokcli.cache.small import SmallColumns
from tokcli.errors import IntegrityError
from tokcli.types import EncodedItem


def items_of(kind: str) -> list[EncodedItem]:
    """Few tokens that share row groups, some none at all; or so many that each has several rows."""
    if kind == "small":
        return [make_item(str(number), number % 5, seed=number) for number in range(600)]
    items = [make_item(str(number), 40, seed=number) for number in range(5)]
    for number, item in enumerate(items):
        generator = torch.Generator().manual_seed(number)
        object.__setattr__(item.kept, "tokens", torch.randn(40, 80_000, generator=generator).half())
    return items


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a row was read straight from the file, and how often row groups by pyarrow."""
    counts: Counter[str] = Counter()
    direct, read = DirectReader.blobs, tokcli.cache.files._Open.read

    def counted_direct(self: DirectReader, *arguments: Any) -> Any:
        blobs = direct(self, *arguments)
        counts["direct"] += blobs is not None
        return blobs

    def counted_read(self: Any, number: int) -> Any:
        counts["pyarrow"] += 1
        return read(self, number)

    monkeypatch.setattr(DirectReader, "blobs", counted_direct)
    monkeypatch.setattr(tokcli.cache.files._Open, "read", counted_read)
    return counts


@pytest.mark.parametrize("kind", ["small", "large"])
def test_what_is_written_is_read_straight_from_the_file(tmp_path: Path, kind: str, reads: Counter[str]) -> None:
    items = items_of(kind)
    write_cache(tmp_path / "c", *items)
    for written, back in zip(items, open_cache(tmp_path / "c"), strict=True):
        assert_same_item(back, written)
    assert reads["direct"] > 1
    assert not reads["pyarrow"]


@pytest.mark.parametrize(
    "options",
    [{"compression": "zstd"}, {"use_dictionary": True}, {"data_page_size": 1, "write_batch_size": 2}],
    ids=str,
)
def test_other_layouts_are_left_to_pyarrow(
    tmp_path: Path, options: dict[str, Any], reads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = tokcli.cache.shard.writer_options
    monkeypatch.setattr(tokcli.cache.shard, "writer_options", lambda schema: usual(schema) | options)
    items = items_of("small")
    write_cache(tmp_path / "c", *items)
    for written, back in zip(items, open_cache(tmp_path / "c"), strict=True):
        assert_same_item(back, written)
    assert reads["pyarrow"]
    assert not reads["direct"]


@pytest.mark.parametrize("kind", ["small", "large"])
def test_what_is_done_with_an_item_is_seen_by_nobody_else(tmp_path: Path, kind: str) -> None:
    items = items_of(kind)
    write_cache(tmp_path / "c", *items)
    cache = open_cache(tmp_path / "c")
    for _ in range(2):
        for number, written in enumerate(items):
            back = cache[number]
            assert_same_item(back, written)
            kept = back.kept
            for tensor in (kept.tokens, kept.coords, kept.mass, kept.source, kept.assignment):
                if tensor is not None:
                    tensor.fill_(0)


def test_a_file_that_became_shorter_is_damage(tmp_path: Path) -> None:
    write_cache(tmp_path / "c", *items_of("large"))
    cache = open_cache(tmp_path / "c")
    first = cache[0]
    (shard,) = (tmp_path / "c" / "data").glob("*.parquet")
    os.truncate(shard, 1000)
    with pytest.raises(IntegrityError, match=rf"{shard.name} is damaged, reading 4 \("):
        cache[4]
    assert_same_item(first, items_of("large")[0])


@pytest.mark.parametrize("order", ["in order", "at random"])
def test_damage_is_told_of_the_item_that_it_is_in(tmp_path: Path, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its small columns are read together with those of others."""
    monkeypatch.setattr(tokcli.cache.shard, "ROW_GROUP_ROWS", 1)
    items = [make_item(f"clip-{number}", 3, seed=number) for number in range(60)]
    write_cache(tmp_path / "c", *items)
    (shard,) = (tmp_path / "c" / "data").glob("*.parquet")
    content = shard.read_bytes()
    value = len("clips/clip-41").to_bytes(4, "little") + b"clips/clip-41"  # where it is not a page's statistics
    assert content.count(value) == 1
    shard.write_bytes(content.replace(value, value[:-1] + b"X"))
    cache = open_cache(tmp_path / "c")
    numbers = list(range(60)) if order == "in order" else random.Random(0).choices(range(60), k=200)
    for number in numbers:
        if number == 41:
            with pytest.raises(IntegrityError, match="is damaged, reading clip-41"):
                cache[number]
        else:
            assert_same_item(cache[number], items[number])


def test_a_cache_that_is_let_go_of_leaves_no_file_open(tmp_path: Path) -> None:
    write_cache(tmp_path / "c", *items_of("small")[:3])

    def opened() -> int:
        files = [Path(file.path) for file in psutil.Process().open_files()]
        return sum(file.suffix == ".parquet" for file in files)

    cache = open_cache(tmp_path / "c")
    assert len(cache[0].kept) == 0
    assert opened() > 0
    del cache
    gc.collect()
    assert opened() == 0


def test_small_columns_are_read_ahead_in_order_and_kept_at_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokcli.cache.shard, "ROW_GROUP_ROWS", 1)
    items = [make_item(str(number), 3, seed=number) for number in range(200)]
    write_cache(tmp_path / "c", *items)
    asked: list[int] = []
    read = SmallColumns._read

    def counted(self: SmallColumns, groups: range) -> Any:
        asked.append(len(groups))
        return read(self, groups)

    monkeypatch.setattr(SmallColumns, "_read", counted)
    for written, back in zip(items, open_cache(tmp_path / "c"), strict=True):
        assert_same_item(back, written)
    assert sum(asked) == 200
    assert len(asked) < 12
    asked.clear()
    cache: Cache = open_cache(tmp_path / "c")
    for number in random.Random(0).choices(range(200), k=300):
        assert_same_item(cache[number], items[number])
    assert asked[:10] == [1] * 10  # one item alone costs no more than itself
    assert asked.count(200) == 1
    assert asked[-1] == 200
    monkeypatch.setattr("tokcli.cache.small.WINDOW_BYTES", 1 << 10)
    monkeypatch.setattr("tokcli.cache.files.HELD_BYTES", 1 << 10)
    asked.clear()
    for back in (cache := open_cache(tmp_path / "c")):
        assert_same_item(back, items[int(back.id)])
    assert max(asked) < 20  # few fit
    for number in random.Random(0).choices(range(200), k=100):
        assert_same_item(cache[number], items[number])
    assert asked[-1] == 1
