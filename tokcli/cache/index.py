"""Where every visible item of a cache stands: built once from the small columns when the cache is opened."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from tokcli.cache.layout import Shard, list_shards
from tokcli.cache.manifest import Manifest
from tokcli.cache.parquet import ShardGoneError, open_shard, read_columns, way_out
from tokcli.errors import IntegrityError
from tokcli.storage import Location

LOOKS = 5
"""How often a folder is listed anew when shards vanish between listing and reading."""


@dataclass(frozen=True, slots=True)
class Place:
    """Rows ``first`` to ``first + count`` of a shard, in the order of chunks."""

    shard: int
    first: int
    count: int


@dataclass(frozen=True)
class Index:
    """A snapshot of the committed shards."""

    shards: tuple[Shard, ...]
    items: dict[str, Place]
    """Finished items in the order in which they were written; superseded rows are left out."""
    failed: dict[str, Place]
    """Items whose newest row is an error."""
    stored: tuple[int, ...] = ()
    """Items in each shard, superseded ones included."""


def current_index(cache: Location, manifest: Manifest) -> Index:
    """The index of a cache that may be rewritten while it is read: shards that vanish have successors by then."""
    for _ in range(LOOKS):
        with contextlib.suppress(ShardGoneError):
            return build_index(cache, manifest)
    return build_index(cache, manifest)


def build_index(cache: Location, manifest: Manifest, shards: Sequence[Shard] | None = None) -> Index:
    """Read the ids of every shard, or of those given in the order of commits.

    Raises ``IntegrityError`` for a shard that is damaged or holds part of an item.
    """
    shards = tuple(list_shards(cache) if shards is None else shards)
    items: dict[str, Place] = {}
    failed: dict[str, Place] = {}
    stored: list[int] = []
    for number, shard in enumerate(shards):
        with open_shard(shard, manifest) as file:
            columns = ["id", "chunk", "num_chunks"] if shard.table == "data" else ["id"]
            table = read_columns(shard, file, columns)
        target, other = (items, failed) if shard.table == "data" else (failed, items)
        places = _places(shard, number, table)
        stored.append(len(places))
        for item_id, place in places:
            other.pop(item_id, None)
            target.pop(item_id, None)  # the newest row also takes the newest place in the order
            target[item_id] = place
    return Index(shards, items, failed, tuple(stored))


def _places(shard: Shard, number: int, table: pa.Table) -> list[tuple[str, Place]]:
    ids = table["id"].to_pylist()
    if shard.table == "errors":
        return [(item_id, Place(number, row, 1)) for row, item_id in enumerate(ids)]
    chunks, totals = table["chunk"].to_pylist(), table["num_chunks"].to_pylist()
    starts = [row for row, chunk in enumerate(chunks) if chunk == 0]
    places = []
    for first, stop in zip(starts, [*starts[1:], len(ids)]):
        count = stop - first
        whole = totals[first] == count and chunks[first:stop] == list(range(count))
        if not whole or ids[first:stop] != [ids[first]] * count:
            raise IntegrityError(f"{shard.path} holds only part of the rows of {ids[first]}; {way_out(shard.path)}")
        places.append((ids[first], Place(number, first, count)))
    if ids and (not starts or starts[0] != 0):
        raise IntegrityError(f"{shard.path} begins in the middle of an item; {way_out(shard.path)}")
    return places
