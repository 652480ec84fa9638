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
        parts: list[npt.NDArray[np.uint8]] = []
        blobs: list[dict[str, pa.Buffer]] = [{} for _ in sizes]
        for name, chunk in zip(DIRECT, chunks):
            lengths = [size[name] for size in sizes]
            end = chunk.data_page_offset + chunk.total_compressed_size
            # From the first value on: the page's header, and the length of that value, lie before.
            values = np.empty(sum(lengths) + _PREFIX * (len(lengths) - 1), np.uint8)
            plain = chunk.compression == "UNCOMPRESSED" and not chunk.has_dictionary_page
            if not plain or end - values.nbytes - _PREFIX < max(at, chunk.data_page_offset):
                return None
            parts += [np.empty(end - values.nbytes - at, np.uint8), values]
            for of_row, blob in zip(blobs, _cut(values, lengths)):
                of_row[name] = blob
            at = end
        num_bytes = os.preadv(self._file, [part.data for part in parts], start)
        if num_bytes < at - start:
            raise ValueError(f"{num_bytes} of {at - start} bytes are left at {start}")
        for name, before, values in zip(DIRECT, parts[::2], parts[1::2]):
            if not _told(before, values, [size[name] for size in sizes]):
                return None
        return [row.with_blobs(of_row) for row, of_row in zip(rows, blobs)]


def _cut(values: npt.NDArray[np.uint8], lengths: list[int]) -> list[pa.Buffer]:
    """Each value of a run of them, as part of one buffer."""
    whole = pa.py_buffer(values)
    return [whole.slice(start, length) for start, length in zip(_starts(lengths), lengths)]


def _told(before: npt.NDArray[np.uint8], values: npt.NDArray[np.uint8], lengths: list[int]) -> bool:
    """Whether the lengths that stand before each value are those; ``before`` ends where the first value begins."""
    prefixes = [before[-_PREFIX:], *(values[start - _PREFIX : start] for start in _starts(lengths)[1:])]
    return [int.from_bytes(prefix.tobytes(), "little") for prefix in prefixes] == lengths


def _starts(lengths: list[int]) -> list[int]:
    """Where each value begins, behind the length of the first."""
    return list(accumulate((length + _PREFIX for length in lengths[:-1]), initial=0))
