"""The blobs of a row straight from the file, by one read each into the memory that their tensors will have.

pyarrow reads whole row groups, copies each value twice and spends more time than that on a column's pages. What is
stored plainly lies where arithmetic says: a column's page ends where its column does, every value stands behind four
bytes that tell its length, and the small columns tell all lengths. Whoever decodes a row holds the bytes against the
row's checksum.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

DIRECT = ("source", "coords", "tokens")
"""Blobs that every row has, in the order in which they lie in the file."""

PREFIX = 4
"""Bytes of a value's length, before it."""


Offsets: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Places:
    """Where in a file the blobs of a row group lie."""

    pages: dict[str, tuple[int, int]]
    """Where the page of all rows' values begins, its header first, and where it ends, by name."""
    values: dict[str, tuple[Offsets, Offsets]]
    """Where the value of each row begins, its length first, and how many bytes it has, by name."""


class BlobPlaces:
    """What a shard's footer tells of where ``DIRECT`` blobs lie."""

    def __init__(self, metadata: pq.FileMetaData) -> None:
        numbers = {metadata.schema.column(number).path: number for number in range(metadata.num_columns)}
        self._metadata = metadata
        self._numbers = {name: numbers[name] for name in DIRECT}

    def of_group(self, group: int, sizes: Mapping[str, Offsets]) -> Places | None:
        """The places in a row group whose rows' blobs have these sizes by name; None where it is not laid out as tokcli
        writes them."""
        row_group = self._metadata.row_group(group)
        places = Places({}, {})
        for name, number in self._numbers.items():
            chunk, lengths = row_group.column(number), sizes[name]
            page = chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size
            begins = page[1] - np.cumsum((lengths + PREFIX)[::-1])[::-1]
            plain = chunk.compression == "UNCOMPRESSED" and not chunk.has_dictionary_page
            if not plain or begins[0] < page[0]:
                return None
            places.pages[name], places.values[name] = page, (begins, lengths)
        return places


class DirectReader:
    """A shard of a local disk, open beside pyarrow's reader of it."""

    def __init__(self, path: Path, *, memory_map: bool = False) -> None:
        """``memory_map`` is about ``read`` alone. Raises ``OSError`` where the file can't be opened."""
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # Caches are let go of, not closed.
        self.close = weakref.finalize(self, os.close, self._file)
        self._whole = _mapped(path, os.fstat(self._file).st_size) if memory_map else None

    def read(self, begin: int, end: int) -> npt.NDArray[np.uint8]:
        """These bytes, in memory of their own, or where the mapped file has them.

        Raises ``OSError`` where the file can't be read, ``ValueError`` where it is shorter than it was.
        """
        if self._whole is not None:
            if (size := os.fstat(self._file).st_size) < end:
                raise ValueError(f"{size} of {end} bytes are left")
            return self._whole[begin:end]
        content = np.empty(end - begin, np.uint8)
        self._fill([content], begin)
        return content

    def blobs(self, places: Places, row: int) -> dict[str, npt.NDArray[np.uint8]] | None:
        """Blobs of one row by name, in memory of their own; None where a length is not the one that is written there.

        Raises ``OSError`` where the file can't be read, ``ValueError`` where it is shorter than it was.
        """
        blobs = {}
        for name, (begins, lengths) in places.values.items():
            begin, length = int(begins[row]), int(lengths[row])
            prefix, value = bytearray(PREFIX), np.empty(length, np.uint8)
            self._fill([prefix, value], begin)
            if int.from_bytes(prefix, "little") != length:
                return None
            blobs[name] = value
        return blobs

    def _fill(self, parts: Sequence[Any], begin: int) -> None:
        """Read into these buffers of bytes, one after the other."""
        wanted, found = sum(map(len, parts)), os.preadv(self._file, parts, begin)
        if found < wanted:
            raise ValueError(f"{found} of {wanted} bytes are left at {begin}")


def _mapped(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """A whole file, of which what is written to becomes the process's own.

    Unlike ``mmap`` it holds no file open, and may live as long as any tensor over it does.
    """
    import torch

    return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
