"""The blobs of a row group straight from the file, by one read into the memory that their tensors will have.

pyarrow copies each value twice and spends more time than that on a column's pages. What is stored plainly lies where
arithmetic says: a column's page ends where its column does, every value stands behind four bytes that tell its length,
and the small columns tell all lengths. Whoever decodes a row holds the bytes against the row's checksum.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tokcli.cache.row import StoredRow
from tokcli.errors import IntegrityError

DIRECT = ("source", "coords", "tokens")
"""Blobs that every row has, in the order in which they lie in the file."""

_PREFIX = 4
"""Bytes of a value's length, before it."""


class DirectReader:
    """A shard of a local disk, open beside pyarrow's reader of it."""

    def __init__(self, path: Path, metadata: pq.FileMetaData) -> None:
        """Raises ``OSError`` where the file can't be opened."""
        self._metadata = metadata
        numbers = {metadata.schema.column(number).path: number for number in range(metadata.num_columns)}
        self._numbers = [numbers[name] for name in DIRECT]
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # Caches are let go of, not closed.
        self.close = weakref.finalize(self, os.close, self._file)

    def filled(self, group: int, rows: Sequence[StoredRow]) -> list[StoredRow] | None:
        """The rows of a row group, of which small columns were read, with ``DIRECT`` blobs in memory of their own.

        None where these are not laid out as tokcli writes them. Raises ``OSError`` where the file can't be read,
        ``ValueError`` where it is shorter than it was.
        """
        try:
            sizes = [row.blob_sizes() for row in rows]
        except IntegrityError:
            return None  # whoever decodes the row tells what is wrong with it
        chunks = [self._metadata.row_group(group).column(number) for number in self._numbers]
        start = at = min(chunk.data_page_offset for chunk in chunks)
        columns: list[tuple[str, list[int], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]] = []
        for name, chunk in zip(DIRECT, chunks):
            lengths = [size[name] for size in sizes]
            end = chunk.data_page_offset + chunk.total_compressed_size
            # From the first value on: the page's header, and the length of that value, lie before.
            values = np.empty(sum(lengths) + _PREFIX * (len(lengths) - 1), np.uint8)
            plain = chunk.compression == "UNCOMPRESSED" and not chunk.has_dictionary_page
            if not plain or end - values.nbytes - _PREFIX < max(at, chunk.data_page_offset):
                return None
            columns.append((name, lengths, np.empty(end - values.nbytes - at, np.uint8), values))
            at = end
        num_bytes = os.preadv(
            self._file, [part.data for *_, before, values in columns for part in (before, values)], start
        )
        if num_bytes < at - start:
            raise ValueError(f"{num_bytes} of {at - start} bytes are left at {start}")
        blobs: list[dict[str, pa.Buffer]] = [{} for _ in sizes]
        for name, lengths, before, values in columns:
            starts = list(accumulate((length + _PREFIX for length in lengths[:-1]), initial=0))
            prefixes = [before[-_PREFIX:], *(values[begin - _PREFIX : begin] for begin in starts[1:])]
            if [int.from_bytes(prefix.tobytes(), "little") for prefix in prefixes] != lengths:
                return None
            whole = pa.py_buffer(values)
            for of_row, begin, length in zip(blobs, starts, lengths):
                of_row[name] = whole.slice(begin, length)
        return [row.with_blobs(of_row) for row, of_row in zip(rows, blobs)]
