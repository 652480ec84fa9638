"""The blobs of a row straight from the file, by one read each into the memory that their tensors will have.

pyarrow reads whole row groups, copies each value twice and spends more time than that on a column's pages. What is
stored plainly lies where arithmetic says: a column's page ends where its column does, every value stands behind four
bytes that tell its length, and the small columns tell all lengths. Whoever decodes a row holds the bytes against the
row's checksum.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from tokcli.cache.codec import Codec
from tokcli.cache.parquet import DAMAGE, columns_of
from tokcli.cache.row import StoredRow
from tokcli.errors import IntegrityError

DIRECT = ("source", "coords", "tokens")
"""Blobs that every row has, in the order in which they lie in the file."""

_TELLING = ("num_tokens", "dtype", "hidden_size", "deepstack_levels")
"""What tells the sizes of a row's blobs."""

PREFIX = 4
"""Bytes of a value's length, before it."""

Offsets: TypeAlias = npt.NDArray[np.int64]


class BlobPlaces:
    """Where the ``DIRECT`` blobs of a shard's rows lie, where all of these are stored alike; made by ``of``."""

    def __init__(self, metadata: pq.FileMetaData, starts: list[int], counts: Offsets, like: StoredRow) -> None:
        self.starts = starts
        """First row of every row group, and the number of rows."""
        self.counts = counts
        """(R,): tokens of every row."""
        self.like = like
        """A row of which ``dtype``, ``hidden_size`` and levels were read, which are those of all."""
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        rows, ends = np.diff(starts), np.array(starts[1:], np.int64)
        self.pages: dict[str, Offsets] = {}
        """(G, 2): where the page of all values of a row group begins, its header first, and where it ends, by name."""
        self.values: dict[str, tuple[Offsets, Offsets]] = {}
        """(R,): where the value of each row begins, its length first, and how many bytes it has, by name."""
        plain = rows > 0
        numbers = {metadata.schema.column(number).path: number for number in range(metadata.num_columns)}
        group_of, sizes = np.repeat(np.arange(len(groups)), rows), like.blob_sizes(counts)
        for name in DIRECT:
            chunks = [group.column(numbers[name]) for group in groups]
            pages = np.array([(c.data_page_offset, c.total_compressed_size) for c in chunks], np.int64).reshape(-1, 2)
            pages[:, 1] += pages[:, 0]
            upto = np.cumsum(sizes[name] + PREFIX)
            begins = (pages[:, 1] - upto[ends - 1])[group_of] + upto - sizes[name] - PREFIX
            plain &= [c.compression == "UNCOMPRESSED" and not c.has_dictionary_page for c in chunks]
            plain &= begins[ends - rows] >= pages[:, 0]
            self.pages[name], self.values[name] = pages, (begins, sizes[name])
        self.plain: list[bool] = plain.tolist()
        """Of each row group whether it may be laid out as tokcli writes it."""

    @classmethod
    def of(cls, file: pq.ParquetFile, starts: list[int], codec: Codec | None) -> Self | None:
        """None where what tells of the places is damaged or missing: whoever reads the row that it is in says so."""
        with contextlib.suppress(*DAMAGE, IntegrityError):
            names = [name for name in _TELLING if name in file.schema_arrow.names]
            like = StoredRow(columns_of(file.read_row_group(0, columns=names, use_threads=False)), 0, codec)
            counts = file.read(columns=["num_tokens"], use_threads=False)["num_tokens"]
            return cls(file.metadata, starts, counts.to_numpy().astype(np.int64), like)
        return None


class DirectReader:
    """A shard of a local disk, open beside pyarrow's reader of it."""

    def __init__(self, path: Path) -> None:
        """Raises ``OSError`` where the file can't be opened."""
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # Caches are let go of, not closed; and who reads on must not find the file closed, or another in its place.
        weakref.finalize(self, os.close, self._file)

    def read(self, begin: int, end: int) -> npt.NDArray[np.uint8]:
        """These bytes, in memory of their own.

        Raises ``OSError`` where the file can't be read, ``ValueError`` where it is shorter than it was.
        """
        content = np.empty(end - begin, np.uint8)
        self._fill([content], begin)
        return content

    def mapped(self) -> Callable[[int, int], npt.NDArray[np.uint8]]:
        """The same as ``read``, from the file mapped into memory anew. What is written there is the process's own.

        The mapping holds no file open, and lives as long as any tensor over it does. Raises ``OSError`` where the file
        can't be mapped.
        """
        import torch

        size = os.fstat(self._file).st_size
        try:
            # By the open file: its name may be another's by now.
            whole = torch.from_file(f"/dev/fd/{self._file}", shared=False, size=size, dtype=torch.uint8).numpy()
        except RuntimeError as error:
            raise OSError(f"can't be mapped: {str(error).splitlines()[0]}") from error

        def read(begin: int, end: int) -> npt.NDArray[np.uint8]:
            if (left := os.fstat(self._file).st_size) < end:
                raise ValueError(f"{left} of {end} bytes are left")
            return whole[begin:end]

        return read

    def blobs(self, places: BlobPlaces, row: int) -> dict[str, npt.NDArray[np.uint8]] | None:
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
