"""A shard that is an object: what a call reads of it is known from the footer, and asked for together."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tokcli.storage import RemotePath
from tokcli.storage.ranges import RangeFile, Span

AHEAD_BYTES = 8 << 20
"""Of row groups read by one request when they are read one after another."""


class RemoteParquet(pq.ParquetFile):
    """``pyarrow.parquet.ParquetFile``, which by itself makes a request for every column of every row group.

    One row group is one request, with all its columns: who reads one wants the item. Whole columns are a request for
    every stretch of row groups in which they lie near each other, many at once.
    """

    def __init__(
        self, path: RemotePath, metadata: pq.FileMetaData, checked: bool, like: pq.ParquetFile | None = None
    ) -> None:
        """``like`` is the same shard, open: what either has fetched serves both."""
        self._bytes: RangeFile = like._bytes if isinstance(like, RemoteParquet) else RangeFile(path)
        self._last_group = -2
        super().__init__(self._bytes, metadata=metadata, page_checksum_verification=checked, pre_buffer=False)

    def read_row_group(self, i: int, *args: Any, **options: Any) -> pa.Table:
        if not self._bytes.has(_extent(self.metadata.row_group(i))):
            self._bytes.want([self._groups(i)])
        self._last_group = i
        return super().read_row_group(i, *args, **options)

    def read(self, columns: list[str] | None = None, **options: Any) -> pa.Table:
        metadata = self.metadata
        wanted = None if columns is None else set(columns)
        spans = [
            span for group in range(metadata.num_row_groups) for span in _columns(metadata.row_group(group), wanted)
        ]
        self._bytes.want(spans)
        try:
            return super().read(columns=columns, **options)
        finally:
            self._bytes.forget()

    def _groups(self, first: int) -> Span:
        """A row group, with those behind it where they are read in order."""
        metadata = self.metadata
        start, end = _extent(metadata.row_group(first))
        following = first + 1
        while first == self._last_group + 1 and following < metadata.num_row_groups:
            _, far = _extent(metadata.row_group(following))
            if far - start > AHEAD_BYTES:
                break
            end, following = far, following + 1
        return start, end


def _columns(group: pq.RowGroupMetaData, names: set[str] | None) -> list[Span]:
    """The bytes of each column; nested ones are several."""
    chunks = [group.column(number) for number in range(group.num_columns)]
    return [_span(chunk) for chunk in chunks if names is None or chunk.path_in_schema.split(".")[0] in names]


def _extent(group: pq.RowGroupMetaData) -> Span:
    spans = _columns(group, None)
    return min(start for start, _ in spans), max(end for _, end in spans)


def _span(chunk: pq.ColumnChunkMetaData) -> Span:
    start = chunk.data_page_offset
    if chunk.has_dictionary_page:
        start = min(start, chunk.dictionary_page_offset)
    return start, start + chunk.total_compressed_size
