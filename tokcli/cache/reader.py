"""Reading a cache: by id, by number, in order, or as a table."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from tokcli.cache.codecs import cache_codec
from tokcli.cache.decode import decode_item
from tokcli.cache.files import ShardFiles
from tokcli.cache.index import Index, Place, current_index
from tokcli.cache.layout import Table
from tokcli.cache.manifest import Manifest, read_manifest
from tokcli.cache.metadata import concatenated
from tokcli.cache.parquet import way_out
from tokcli.cache.schema import BLOBS, column_types
from tokcli.cache.success import read_success
from tokcli.cache.summary import summarize
from tokcli.errors import CacheError, IntegrityError
from tokcli.storage import Location, RemotePath, location
from tokcli.types import EncodedItem

if TYPE_CHECKING:
    import pandas
    import torch

    from tokcli.cache.blocks import TokenBlock

_ITEM_TABLE_LEAVES_OUT = (*BLOBS, "chunk", "num_chunks", "num_tokens")


class Cache:
    """A token cache as it was when it was opened; made by ``open_cache``.

    ``cache[id]`` and ``cache[number]`` give an ``EncodedItem`` with CPU tensors in the cache's dtype; iteration gives
    all of them in the order in which they were written. It pickles to its path, and may be used after a fork and from
    several threads, so it serves as a map-style dataset of ``torch.utils.data.DataLoader`` as it is.
    Every page that is read is checked against its checksum: ``IntegrityError`` when the bytes are not those written.
    """

    manifest: Manifest

    def __init__(self, path: str | Path | RemotePath) -> None:
        self.path = location(path)
        self.manifest = read_manifest(self.path)
        # Before the shards: a writer may be adding some, and then the mark must not be newer than what is found.
        told = self._told()
        self._index: Index = current_index(self.path, self.manifest)
        self._ids = list(self._index.items)
        self._check_complete(told)
        self.complete = told is not None
        """Whether the run that wrote it reached its end; a run that is going on, or was stopped, did not."""
        self.codec = cache_codec(self.path, self.manifest)
        """How tokens are read where rows do not tell enough: by the cache's codebook."""
        self._files = ShardFiles(self._index.shards, self.manifest, self.codec)
        self._selected = False

    def _told(self) -> dict[str, int] | None:
        try:
            return read_success(self.path)
        except ValueError:
            return None

    def _check_complete(self, told: dict[str, int] | None) -> None:
        """Raise ``IntegrityError`` when ids that a finished run counted are gone."""
        found = len(self._index.items) + len(self._index.failed)
        if told is not None and found < told["items"] + told["failed"]:
            raise IntegrityError(
                f"{self.path} was finished with {told['items']} items and {told['failed']} failures, of which "
                f"{found} are left: a shard is missing; run the compress command again: only what is missing is redone"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (type(self), self.path, self._ids if self._selected else None)

    def __repr__(self) -> str:
        return f"Cache({str(self.path)!r}, {len(self)} items, {len(self._index.failed)} failed)"

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._index.items

    def __iter__(self) -> Iterator[EncodedItem]:
        for item_id in self._ids:
            yield self[item_id]

    def __getitem__(self, key: str | int) -> EncodedItem:
        """One item. Raises ``CacheError`` for an id that the cache does not have, ``IndexError`` for such a number."""
        item_id = self._ids[key] if isinstance(key, int) else key
        place = self._index.items.get(item_id)
        if place is None:
            raise CacheError(self._unknown(item_id))
        shard = self._index.shards[place.shard]
        rows = self._files.rows(place.shard, place.first, place.count, what=item_id)
        try:
            return decode_item(rows)
        except (IntegrityError, ValueError) as error:
            if isinstance(error, IntegrityError) and str(shard.path) in str(error):
                raise
            raise IntegrityError(f"{shard.path} is damaged: {error}; {way_out(shard.path)}") from error

    def blocks(self, *, check: bool = True, memory_map: bool = False) -> Iterator[TokenBlock]:
        """Tokens of all items in the order of shards, a row group at a time: many times as fast as item by item.

        Args:
            check: Hold tokens, coordinates and sources against the checksums of their pages.
            memory_map: Use them where they lie in mapped files in place of reading them. A disk that fails then, or a
                file that something cuts short meanwhile, ends the process.

        Raises:
            IntegrityError: The bytes are not those written.
        """
        from tokcli.cache.blocks import token_blocks

        return token_blocks(self, self._files, check=check, memory_map=memory_map)

    def ids(self) -> list[str]:
        """Ids of the finished items in the order in which they were written."""
        return list(self._ids)

    def ids_by_shard(self) -> list[list[str]]:
        """The same, those of each shard in a list of their own: a shard's items are read fastest one after another."""
        shards: dict[int, list[str]] = {}
        for item_id, place in self._index.items.items():
            shards.setdefault(place.shard, []).append(item_id)
        return list(shards.values())

    def select(self, ids: Iterable[str]) -> Self:
        """The same cache with only these items, in the order in which they were written, and without failures.

        Raises ``CacheError`` for an id that the cache does not have.
        """
        wanted = set(ids)
        if unknown := sorted(wanted - self._index.items.keys()):
            raise CacheError(self._unknown(unknown[0]))
        chosen = object.__new__(type(self))
        chosen.__dict__.update(self.__dict__)
        chosen._ids = [item_id for item_id in self._ids if item_id in wanted]
        chosen._index = replace(
            self._index, items={item_id: self._index.items[item_id] for item_id in chosen._ids}, failed={}
        )
        chosen._selected = True
        return chosen

    @property
    def index(self) -> Index:
        """Where each item stands in the shards."""
        return self._index

    @property
    def fingerprint(self) -> str:
        """Digest of the configuration that made the cache, 64 hex digits; answers carry it as ``cache_fingerprint``."""
        return self.manifest.digest

    @property
    def tower_fingerprint(self) -> str:
        """Digest of the weights and the preprocessing of the tower that made the tokens."""
        return str(self.manifest.configuration["model"]["fingerprint"])

    def tensors(self, item_id: str | int) -> dict[str, torch.Tensor]:
        """One item as tensors: ``tokens`` (K, D), ``coords`` int32 (K, 4), ``mass`` float32 (K,), ``source`` int64
        (K,), ``times`` float64 (T,), ``assignment`` int32 (N,) where a method that merges stored it, and ``deepstack``
        (K, L, D) where the language model takes such levels."""
        import torch

        item = self[item_id]
        tensors = {
            "tokens": item.kept.tokens,
            "coords": item.kept.coords,
            "mass": item.kept.mass,
            "source": item.kept.source,
            "times": torch.from_numpy(item.times),
        }
        rest = {"assignment": item.kept.assignment, "deepstack": item.kept.deepstack}
        return tensors | {name: tensor for name, tensor in rest.items() if tensor is not None}

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """What is known of each item, without tensors: a row per item in the order of writing.

        All columns by default; the user's own begin with ``meta_``. Raises ``CacheError`` for an unknown column.
        """
        return self._table("data", self._index.items, columns)

    def errors(self) -> pa.Table:
        """A row per item whose newest attempt failed."""
        return self._table("errors", self._index.failed, None)

    def to_pandas(self, columns: Sequence[str] | None = None) -> pandas.DataFrame:
        """``table`` as a data frame."""
        try:
            return self.table(columns).to_pandas()
        except ModuleNotFoundError as error:
            raise CacheError("to_pandas needs pandas, which is not installed: pip install pandas") from error

    def stats(self) -> dict[str, Any]:
        """Totals: ``items, failed, kept_tokens, source_tokens, cache_bytes, source_bytes, media_seconds``, and the same
        but ``cache_bytes`` by kind under ``kinds``. ``cache_bytes`` counts all shards, superseded rows included."""
        cache_bytes = sum(shard.path.stat().st_size for shard in self._index.shards)
        return summarize(self.table(), failed=len(self._index.failed), cache_bytes=cache_bytes)

    def _table(self, table: Table, places: dict[str, Place], columns: Sequence[str] | None) -> pa.Table:
        rows_of: dict[int, list[int]] = {}
        for place in places.values():
            rows_of.setdefault(place.shard, []).append(place.first)
        parts = []
        for number, shard in enumerate(self._index.shards):
            if shard.table == table and number in rows_of:
                part = self._files.columns(number, leave_out=_ITEM_TABLE_LEAVES_OUT)
                parts.append(part.take(pa.array(np.array(rows_of[number], np.int64))))
        if not parts:
            schema = column_types(table)
            parts = [schema.empty_table().drop_columns([n for n in _ITEM_TABLE_LEAVES_OUT if n in schema.names])]
        result = concatenated(parts)
        if columns is None:
            return result
        if unknown := [name for name in columns if name not in result.column_names]:
            raise CacheError(
                f"the table of {self.path} has no column {unknown[0]!r}; it has {', '.join(result.column_names)}"
            )
        return result.select(list(columns))

    def _unknown(self, item_id: str) -> str:
        if item_id in self._index.failed:
            return f"{item_id} failed when {self.path} was made and has no tokens; `tokcli inspect` tells why"
        near = difflib.get_close_matches(str(item_id), self._ids[:10_000], n=1, cutoff=0.4)
        hint = f"; the nearest is {near[0]}" if near else ""
        return f"{self.path} has no item {item_id!r}{hint}; `tokcli inspect {self.path} --items` lists all {len(self)}"


def _reopened(kind: type[Cache], path: Location, ids: list[str] | None) -> Cache:
    """What a pickled cache is; ``ids`` of a selection."""
    cache = kind(path)
    return cache if ids is None else cache.select(ids)


def open_cache(path: str | Path | RemotePath) -> Cache:
    """Open a cache for reading; it needs no lock and sees what is committed now.

    Raises ``CacheError`` for a path that is no cache or has a newer format, ``IntegrityError`` for a damaged one.
    """
    return Cache(path)
