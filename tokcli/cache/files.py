"""Shards kept open for reading: footers are parsed once, and the last row group is at hand."""

from __future__ import annotations

import contextlib
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from tokcli.cache.codec import Codec
from tokcli.cache.layout import Shard
from tokcli.cache.manifest import Manifest
from tokcli.cache.mapped import MappedColumns, MappedShard, blob_places
from tokcli.cache.parquet import columns_of, open_shard, parquet_file, reading
from tokcli.cache.row import Columns, StoredRow
from tokcli.cache.schema import BLOBS, CHECKSUM
from tokcli.storage import RemotePath

MAX_OPEN = 256
"""Shards open at once, each by two files at most; a process may commonly open 1,024."""

AHEAD = 8
"""Row groups of which small columns are read at once by who reads in order."""


@dataclass(frozen=True)
class _Open:
    file: pq.ParquetFile
    mapped: MappedShard | None
    """The same in memory, where it can be mapped and its rows carry checksums."""
    blobs: pq.ParquetFile | None
    """The same, pages not checked, where it can't be mapped: for blobs that the checksums of rows cover."""
    starts: list[int]
    """First row of every row group, and the number of rows."""
    small: list[str]
    """Columns that hold no blobs."""
    numbers: dict[str, int]
    """Of Parquet's columns, by name."""

    def close(self) -> None:
        self.file.close()
        if self.blobs is not None:
            self.blobs.close()


class ShardFiles:
    """Random access to rows of many shards; safe for threads, and starts anew after a fork."""

    def __init__(
        self, shards: Sequence[Shard], manifest: Manifest, codec: Codec | None = None, *, checked: bool = True
    ) -> None:
        """``codec`` is what tells how tokens are read where rows do not."""
        self._shards, self._manifest, self._codec, self._checked = shards, manifest, codec, checked
        self._start()

    def rows(self, shard: int, first: int, count: int, *, what: str) -> Iterator[StoredRow]:
        """Rows of a shard, one item's. ``what`` is named when they cannot be read."""
        for row in range(first, first + count):
            with self._guard():
                opened = self._opened(shard)
                starts, mapped = opened.starts, opened.mapped
                group = bisect_right(starts, row) - 1
                if mapped is not None:
                    with reading(self._shards[shard].path, what):
                        mapped.check_size()
                columns = self._group(shard, group, what)
                place = row - starts[group]
                memory, own = None, starts[group + 1] - starts[group] == 1
                if mapped is not None and isinstance(columns, MappedColumns):
                    # Rows of a long item are copied: into tensors of their own.
                    memory = mapped.give(row, starts[-1]) if count == 1 else None
                    own = memory is not None
            yield StoredRow(columns, place, self._codec, memory=memory, own=own, checked=self._checked)
            if count > 1 and mapped is not None and isinstance(columns, MappedColumns):
                columns.forget(place, mapped)

    def columns(self, shard: int, *, leave_out: Sequence[str]) -> pa.Table:
        """Whole columns of a shard but for those named."""
        with self._guard():
            file = self._opened(shard).file
            with reading(self._shards[shard].path, "its table"):
                names = [name for name in file.schema_arrow.names if name not in leave_out]
                return file.read(columns=names, use_threads=False)

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._last: tuple[int, int, Columns] | None = None
        self._ahead: dict[tuple[int, int], pa.Table] = {}
        self._previous = (-1, -1)

    def _guard(self) -> threading.Lock:
        if self._process != os.getpid():
            self._start()  # a thread that this process does not have may have held the lock, half-way through
        return self._lock

    def _opened(self, shard: int) -> _Open:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        while len(self._open) >= MAX_OPEN:
            self._open.popitem(last=False)[1].close()
        mapped = self._mapped(shard)
        file = open_shard(
            self._shards[shard], self._manifest, None if mapped is None else mapped.source(), checked=self._checked
        )
        blobs = None
        if self._checked and CHECKSUM not in file.schema_arrow.names:
            mapped = None  # nobody but the pages tells whether blobs are what was written
        elif self._checked and mapped is None:
            blobs = self._unchecked(shard, file)
        metadata = file.metadata
        sizes = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        numbers = {metadata.schema.column(number).path: number for number in range(metadata.num_columns)}
        small = [name for name in file.schema_arrow.names if name not in BLOBS]
        self._open[shard] = _Open(file, mapped, blobs, list(accumulate(sizes, initial=0)), small, numbers)
        return self._open[shard]

    def _unchecked(self, shard: int, file: pq.ParquetFile) -> pq.ParquetFile:
        """Whoever decodes a row checks it; checking its pages as well would halve the speed of reading."""
        path = self._shards[shard].path
        with reading(path):
            return parquet_file(path, file.metadata, checked=False, like=file)

    def _mapped(self, shard: int) -> MappedShard | None:
        path = self._shards[shard].path
        if isinstance(path, RemotePath):
            return None
        with reading(path), contextlib.suppress(OSError, ValueError):
            return MappedShard(path)
        return None

    def _group(self, shard: int, group: int, what: str) -> Columns:
        if self._last is not None and self._last[:2] == (shard, group):
            return self._last[2]
        self._last = None
        opened = self._opened(shard)
        with reading(self._shards[shard].path, what):
            columns = self._mapped_group(opened, shard, group) or self._read_group(opened, group)
        if isinstance(columns, MappedColumns) or opened.starts[group + 1] - opened.starts[group] > 1:
            self._last = (shard, group, columns)  # but not a lone row of pyarrow's, whose buffers are given away
        self._previous = (shard, group)
        return columns

    def _read_group(self, opened: _Open, group: int) -> Columns:
        if opened.blobs is None:
            return columns_of(opened.file.read_row_group(group, use_threads=False))
        parts = ((opened.file, opened.small), (opened.blobs, list(BLOBS)))
        tables = [file.read_row_group(group, columns=names, use_threads=False) for file, names in parts]
        return Columns({**columns_of(tables[0]), **columns_of(tables[1])})

    def _mapped_group(self, opened: _Open, shard: int, group: int) -> Columns | None:
        """Small columns, and where the blobs are; None where the file isn't mapped, or its pages are of other kinds."""
        if opened.mapped is None:
            return None
        places = blob_places(opened.mapped.data, opened.file.metadata, group, opened.numbers)
        if places is None:
            return None
        return MappedColumns(columns_of(self._small(opened, shard, group)), places, opened.mapped.data)

    def _small(self, opened: _Open, shard: int, group: int) -> pa.Table:
        """The small columns of a row group, which are read for several at once when one after another is asked for."""
        if (shard, group) not in self._ahead and self._previous == (shard, group - 1):
            # Of damage in those behind it is told when they are asked for.
            with contextlib.suppress(OSError, pa.ArrowException, ValueError, MemoryError, OverflowError):
                self._read_small(opened, shard, range(group, min(group + AHEAD, len(opened.starts) - 1)))
        if (shard, group) not in self._ahead:
            self._read_small(opened, shard, range(group, group + 1))
        return self._ahead.pop((shard, group))

    def _read_small(self, opened: _Open, shard: int, groups: range) -> None:
        table = opened.file.read_row_groups(list(groups), columns=opened.small, use_threads=False)
        starts = opened.starts[groups[0] : groups[-1] + 2]
        self._ahead = {
            (shard, group): table.slice(start - starts[0], end - start)
            for group, (start, end) in zip(groups, pairwise(starts))
        }
