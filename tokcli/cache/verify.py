"""Reading everything once: is the cache what was written, and does it agree with itself?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from tokcli.cache.checksum import checksum_problem
from tokcli.cache.codebook import FILE, codebook_of
from tokcli.cache.index import build_index
from tokcli.cache.layout import SUCCESS, Shard, foreign_files, list_shards
from tokcli.cache.manifest import Manifest, read_manifest
from tokcli.cache.parquet import columns_of, footer_length, open_shard, reading
from tokcli.cache.row import Columns, StoredRow
from tokcli.cache.schema import PAGES_DIGEST
from tokcli.cache.success import read_success
from tokcli.errors import CacheError
from tokcli.storage import Location, RemotePath, location

ROOM_FOR_SEPARATORS = np.array([0, 0, 1])
"""A newline stands behind the last token of its row."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    file: str
    """Path within the cache's folder."""
    what: str


def verify_cache(path: str | Path | RemotePath) -> list[Problem]:
    """All that is wrong with a cache; empty when it is sound. Reads every byte, one row group at a time.

    Checked: every shard's footer against its name, its pages against the footer and their checksums, every row
    against its own, lengths and counts, coordinates against grids, order, masses, and ``_SUCCESS`` against the shards.
    Raises ``CacheError`` for a path that is no cache or has a newer format.
    """
    cache = location(path)
    manifest = read_manifest(cache)
    problems = [
        Problem(_within(cache, file), "is not a shard of this cache; move it elsewhere")
        for file in foreign_files(cache)
    ]
    shards = list_shards(cache)
    for before, shard in pairwise(shards):
        if before.sequence == shard.sequence:
            problems.append(Problem(_name(cache, shard), f"has the sequence number of {before.path.name}"))
    for shard in shards:
        problems += [Problem(_name(cache, shard), what) for what in shard_problems(shard, manifest)]
    if not problems:  # an index over damaged shards would report the same damage once more
        problems += _whole_cache_problems(cache, manifest)
    return problems


def _name(cache: Location, shard: Shard) -> str:
    return _within(cache, shard.path)


def _within(cache: Location, file: Location) -> str:
    return str(file.relative_to(cache))  # type: ignore[arg-type]


def _whole_cache_problems(cache: Location, manifest: Manifest) -> list[Problem]:
    index = build_index(cache, manifest)
    try:
        codebook_of(cache, manifest)
    except CacheError as error:
        return [Problem(FILE, str(error))]
    try:
        told = read_success(cache)
    except ValueError:
        return [Problem(SUCCESS, "is damaged; delete it and run the compress command again")]
    if told is None:
        return []
    found = {"items": len(index.items), "failed": len(index.failed)}
    if told != found:
        return [Problem(SUCCESS, f"tells {told}, the shards hold {found}; run the compress command again")]
    return []


def shard_problems(shard: Shard, manifest: Manifest) -> Iterator[str]:
    """All that is wrong with one shard, whatever the others hold."""
    try:
        with open_shard(shard, manifest) as parquet:
            with reading(shard.path):
                if _pages_digest(shard.path) != (parquet.metadata.metadata or {}).get(PAGES_DIGEST.encode()):
                    yield "its pages are not those that were written"
            check = _RowChecks(shard, manifest)
            for group in range(parquet.metadata.num_row_groups):
                with reading(shard.path, f"row group {group}"):
                    columns = columns_of(parquet.read_row_group(group, use_threads=False))
                    problems = list(check.problems(columns))
                yield from problems
            yield from check.end()
    except CacheError as error:
        yield str(error)


def _pages_digest(path: Location) -> bytes:
    """blake3 of all bytes before the footer, as hex digits."""
    digest = blake3()
    with path.open("rb") as file:
        size = file.seek(-8, os.SEEK_END) + 8
        left = size - footer_length(file.read(8))
        file.seek(0)
        while left > 0:
            block = file.read(min(left, 1 << 20))
            digest.update(block)
            left -= len(block)
    return digest.hexdigest().encode()


class _RowChecks:
    """Invariants of a shard's rows, in order."""

    def __init__(self, shard: Shard, manifest: Manifest) -> None:
        self._shard = shard
        self._digest = manifest.digest
        self._item: Mapping[str, Any] | None = None
        self._next_chunk = 0
        self._tokens = 0
        self._last_coords: tuple[int, ...] = ()

    def problems(self, group: Columns) -> Iterator[str]:
        """What is wrong with a row group."""
        for name in ("sequence", "configuration"):
            expected = self._shard.sequence if name == "sequence" else self._digest
            if any(value != expected for value in group[name].to_pylist()):
                yield f"a row has another {name} than its shard"
        if self._shard.table == "data":
            for number in range(len(group["id"])):
                yield from self._row(StoredRow(group, number))

    def end(self) -> Iterator[str]:
        """What is wrong at the end of an item, and of the shard."""
        if self._item is not None:
            if self._next_chunk != self._item["num_chunks"]:
                yield f"{self._item['id']} has {self._next_chunk} of {self._item['num_chunks']} rows"
            if self._tokens != self._item["kept_tokens"]:
                yield f"{self._item['id']} has {self._tokens} of {self._item['kept_tokens']} tokens"

    def _row(self, row: StoredRow) -> Iterator[str]:
        head = row.head()
        if head["chunk"] == 0:
            yield from self.end()
            self._item, self._next_chunk, self._tokens, self._last_coords = head, 0, 0, ()
            if len(head["source_blake3"]) != 64:
                yield f"{head['id']} has no hash of its source"
        where = f"row {head['chunk']} of {head['id']}"
        if self._item is None or head["id"] != self._item["id"] or head["chunk"] != self._next_chunk:
            yield f"{where} is out of place"
            return
        self._next_chunk += 1
        self._tokens += head["num_tokens"]
        if problem := row.lengths_problem() or checksum_problem(row, head):
            yield f"{where}: {problem}"
            return
        yield from (f"{where}: {problem}" for problem in self._values(row, head))

    def _values(self, row: StoredRow, head: Mapping[str, Any]) -> Iterator[str]:
        grids = np.array([[view["t"], view["h"], view["w"]] for view in head["views"]], np.int64).reshape(-1, 3)
        coords = row.integers("coords").reshape(-1, 4)
        view = coords[:, 0]
        if ((view < 0) | (view >= len(grids))).any() or (coords[:, 1:] < 0).any():
            yield "coords name a view that does not exist, or are negative"
        elif (coords[:, 1:] >= grids[view] + ROOM_FOR_SEPARATORS).any():
            yield "coords lie outside the view's grid"
        ordered = [self._last_coords, *map(tuple, coords.tolist())]
        if any(one > other for one, other in pairwise(ordered)):
            yield "coords are not in (view, t, y, x) order"
        self._last_coords = ordered[-1]
        full = max(head["source_tokens"], int(grids.prod(axis=1).sum()))
        source = row.integers("source")
        if ((source < 0) | (source >= full)).any():
            yield f"source points outside the item's {full} tokens"
        mass = row.buffer("mass")
        if mass is not None and not (np.frombuffer(mass, "<f4") >= 0).all():
            yield "mass is negative or not a number"
        assignment = row.integers("assignment")
        if ((assignment < -1) | (assignment >= head["kept_tokens"])).any():
            yield f"assignment points outside the {head['kept_tokens']} kept tokens"
