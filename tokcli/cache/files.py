"""Shards kept open for reading: footers are parsed once, and the last row group is at hand."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from tokcli.cache.codec import Codec
from tokcli.cache.layout import Shard
from tokcli.cache.manifest import Manifest
from tokcli.cache.parquet import columns_of, open_shard, parquet_file, reading
from tokcli.cache.row import Columns, StoredRow
from tokcli.cache.schema import BLOBS, CHECKSUM

MAX_OPEN = 256
"""Shards open at once, each by two files at most; a process may commonly open 1,024."""


@dataclass(frozen=True)
class _Open:
    file: pq.ParquetFile
    blobs: pq.ParquetFile | None
    """The same, pages not checked: for blobs that the checksums of rows cover. None where there are none."""
    starts: list[int]
    """First row of every row group, and the number of rows."""

    def close(self) -> None:
        self.file.close()
        if self.blobs is not None:
            self.blobs.close()


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
                columns = self._group(shard, group, what)
            yield StoredRow(columns, row - starts[group], self._codec)

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
        self._last: tuple[int, int, Columns] | None = None

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
        file = open_shard(self._shards[shard], self._manifest)
        sizes = (file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups))
        self._open[shard] = _Open(file, self._unchecked(shard, file), list(accumulate(sizes, initial=0)))
        return self._open[shard]

    def _unchecked(self, shard: int, file: pq.ParquetFile) -> pq.ParquetFile | None:
        """Whoever decodes a row checks it; checking its pages as well would halve the speed of reading."""
        if CHECKSUM not in file.schema_arrow.names:
            return None
        path = self._shards[shard].path
        with reading(path):
            return parquet_file(path, file.metadata, checked=False, like=file)

    def _group(self, shard: int, group: int, what: str) -> Columns:
        if self._last is not None and self._last[:2] == (shard, group):
            return self._last[2]
        self._last = None
        opened = self._opened(shard)
        with reading(self._shards[shard].path, what):
            if opened.blobs is None:
                columns = columns_of(opened.file.read_row_group(group, use_threads=False))
            else:
                small = [name for name in opened.file.schema_arrow.names if name not in BLOBS]
                parts = ((opened.file, small), (opened.blobs, list(BLOBS)))
                tables = [file.read_row_group(group, columns=names, use_threads=False) for file, names in parts]
                columns = Columns({**columns_of(tables[0]), **columns_of(tables[1])})
        if opened.starts[group + 1] - opened.starts[group] > 1:  # the buffers of a lone row are given away
            self._last = (shard, group, columns)
        return columns
