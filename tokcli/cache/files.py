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
from tokcli.cache.direct import DIRECT, DirectReader
from tokcli.cache.layout import Shard
from tokcli.cache.manifest import Manifest
from tokcli.cache.parquet import columns_of, open_shard, parquet_file, reading
from tokcli.cache.row import Columns, StoredRow
from tokcli.cache.schema import BLOBS, CHECKSUM
from tokcli.cache.small import SmallColumns
from tokcli.storage import RemotePath

MAX_OPEN = 256
"""Shards open at once, each by two files at most; a process may commonly open 1,024."""


@dataclass(frozen=True)
class _Open:
    file: pq.ParquetFile
    starts: list[int]
    """First row of every row group, and the number of rows."""
    direct: tuple[SmallColumns, DirectReader] | None = None
    """Of a local shard whose rows carry checksums: what pyarrow reads, and what is read straight from the file."""
    unchecked: pq.ParquetFile | None = None
    """The same of an object: pages not checked."""

    def close(self) -> None:
        self.file.close()
        if self.direct is not None:
            self.direct[1].close()
        if self.unchecked is not None:
            self.unchecked.close()

    def rows(self, number: int, codec: Codec | None) -> list[StoredRow]:
        """The rows of a row group. Blobs that their checksums cover are not checked here as well, which would take as
        long as reading them."""
        count = self.starts[number + 1] - self.starts[number]
        if self.direct is not None:
            small, blobs = self.direct
            columns, first = small.group(number)
            rows = [StoredRow(columns, row, codec) for row in range(first, first + count)]
            if (filled := blobs.filled(number, rows)) is not None:
                return filled
        columns = self._read(number)
        return [StoredRow(columns, row, codec) for row in range(count)]

    def _read(self, number: int) -> Columns:
        if self.unchecked is None:
            return columns_of(self.file.read_row_group(number, use_threads=False))
        small = [name for name in self.file.schema_arrow.names if name not in BLOBS]
        parts = ((self.file, small), (self.unchecked, list(BLOBS)))
        tables = [file.read_row_group(number, columns=names, use_threads=False) for file, names in parts]
        return Columns({**columns_of(tables[0]), **columns_of(tables[1])})


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
                starts = self._opened(shard).starts
                group = bisect_right(starts, row) - 1
                rows = self._group(shard, group, what)
            yield rows[row - starts[group]]

    def alone(self, shard: int, row: int) -> bool:
        """Whether the row has a row group to itself, so that its buffers can be given away."""
        with self._guard():
            starts = self._opened(shard).starts
        group = bisect_right(starts, row) - 1
        return starts[group + 1] - starts[group] == 1

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
        self._last: tuple[int, int, list[StoredRow]] | None = None

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
        names = file.schema_arrow.names
        opened = _Open(file, starts)
        if CHECKSUM in names:
            with reading(path):
                if isinstance(path, RemotePath):
                    opened = replace(opened, unchecked=parquet_file(path, file.metadata, checked=False, like=file))
                else:
                    small = SmallColumns(file, [name for name in names if name not in DIRECT], starts)
                    opened = replace(opened, direct=(small, DirectReader(path, file.metadata)))
        self._open[shard] = opened
        return opened

    def _group(self, shard: int, group: int, what: str) -> list[StoredRow]:
        if self._last is not None and self._last[:2] == (shard, group):
            return self._last[2]
        self._last = None
        opened = self._opened(shard)
        with reading(self._shards[shard].path, what):
            rows = opened.rows(group, self._codec)
        if len(rows) > 1:  # the buffers of a lone row are given away
            self._last = (shard, group, rows)
        return rows
