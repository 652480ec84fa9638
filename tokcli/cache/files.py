"""Shards kept open for reading: footers are parsed once, and the last row group is at hand."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from tokcli.cache.codec import Codec
from tokcli.cache.direct import DIRECT, BlobPlaces, DirectReader
from tokcli.cache.layout import Shard
from tokcli.cache.manifest import Manifest
from tokcli.cache.parquet import columns_of, open_shard, parquet_file, reading
from tokcli.cache.row import Columns, StoredRow
from tokcli.cache.schema import BLOBS, CHECKSUM
from tokcli.cache.small import HELD_BYTES, SmallColumns
from tokcli.storage import RemotePath

MAX_OPEN = 256
"""Shards open at once, each by two files at most; a process may commonly open 1,024."""


@dataclass(frozen=True)
class _Group:
    """A row group of which columns were read."""

    columns: Columns
    first: int
    """Row of the columns at which the group begins."""
    count: int
    direct: bool = False
    """Whether ``DIRECT`` blobs of its rows are read as they are asked for."""


@dataclass(frozen=True)
class _Open:
    file: pq.ParquetFile
    starts: list[int]
    """First row of every row group, and the number of rows."""
    direct: tuple[SmallColumns, BlobPlaces, DirectReader] | None = None
    """Of a local shard whose rows carry checksums: what pyarrow reads, and what is read straight from the file."""
    unchecked: pq.ParquetFile | None = None
    """The same of an object: pages not checked."""

    def close(self) -> None:
        self.file.close()
        if self.unchecked is not None:
            self.unchecked.close()

    def group(self, number: int) -> _Group:
        """A row group. Blobs that their checksums cover are not checked here as well, which would take as long as
        reading them."""
        if self.direct is None or not self.direct[1].plain[number]:
            return self.read(number)
        columns, first = self.direct[0].group(number)
        return _Group(columns, first, self.starts[number + 1] - self.starts[number], direct=True)

    def read(self, number: int) -> _Group:
        """A row group, as pyarrow reads it."""
        count = self.starts[number + 1] - self.starts[number]
        if self.unchecked is None:
            return _Group(columns_of(self.file.read_row_group(number, use_threads=False)), 0, count)
        small = [name for name in self.file.schema_arrow.names if name not in BLOBS]
        parts = ((self.file, small), (self.unchecked, list(BLOBS)))
        tables = [file.read_row_group(number, columns=names, use_threads=False) for file, names in parts]
        return _Group(Columns({**columns_of(tables[0]), **columns_of(tables[1])}), 0, count)


class ShardFiles:
    """Random access to rows of many shards; safe for threads, and starts anew after a fork."""

    def __init__(self, shards: Sequence[Shard], manifest: Manifest, codec: Codec | None = None) -> None:
        """``codec`` is what tells how tokens are read where rows do not."""
        self._shards, self._manifest, self._codec = shards, manifest, codec
        self._start()

    def rows(self, shard: int, first: int, count: int, *, what: str) -> Iterator[StoredRow]:
        """Rows of a shard. ``what`` is named when they cannot be read."""
        for row in range(first, first + count):
            with self._guard():
                stored = self._row(shard, row, what)
            yield stored

    def direct(self, shard: int) -> tuple[BlobPlaces, DirectReader] | None:
        """Where the blobs of a shard lie, and what reads them; None where they are left to pyarrow."""
        with self._guard():
            opened = self._opened(shard).direct
        return None if opened is None else opened[1:]

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
        self._last: tuple[int, int, _Group] | None = None

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
        path, file = self._shards[shard].path, open_shard(self._shards[shard], self._manifest)
        sizes = (file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups))
        starts = list(accumulate(sizes, initial=0))
        opened = _Open(file, starts)
        if CHECKSUM in file.schema_arrow.names:
            with reading(path):
                if isinstance(path, RemotePath):
                    opened = replace(opened, unchecked=parquet_file(path, file.metadata, checked=False, like=file))
                elif (places := BlobPlaces.of(file, starts, self._codec)) is not None:
                    names = [name for name in file.schema_arrow.names if name not in DIRECT]
                    small = SmallColumns(file, names, starts, HELD_BYTES // len(self._shards))
                    opened = replace(opened, direct=(small, places, DirectReader(path)))
        self._open[shard] = opened
        return opened

    def _row(self, shard: int, row: int, what: str) -> StoredRow:
        opened = self._opened(shard)
        number = bisect_right(opened.starts, row) - 1
        place = row - opened.starts[number]
        with reading(self._shards[shard].path, what):
            group = self._group(shard, number)
            if opened.direct is not None and group.direct:
                _, places, reader = opened.direct
                if (blobs := reader.blobs(places, row)) is not None:
                    return StoredRow(group.columns, group.first + place, self._codec, blobs, owned=True)
                group = self._keep(shard, number, opened.read(number))
        return StoredRow(group.columns, group.first + place, self._codec, owned=group.count == 1)

    def _group(self, shard: int, number: int) -> _Group:
        if self._last is not None and self._last[:2] == (shard, number):
            return self._last[2]
        self._last = None
        return self._keep(shard, number, self._opened(shard).group(number))

    def _keep(self, shard: int, number: int, group: _Group) -> _Group:
        given_away = not group.direct and group.count == 1  # the buffers of a lone row
        self._last = None if given_away else (shard, number, group)
        return group
