"""A shard of a local disk in memory: its blobs are used where they lie, and what is not asked for is not read."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tokcli.cache.pages import Places, value_places
from tokcli.cache.row import Columns
from tokcli.cache.schema import BLOBS


class MappedShard:
    """A file mapped into memory.

    Pages that are written to become the process's own, the file never changes. Raises ``OSError`` or ``ValueError``
    where it can't be mapped: some file systems can't, and an empty file is none to map.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self.data = memoryview(self._map)
        self._path = path
        self._given_away: set[int] = set()
        self._to_give: memoryview | None = None

    def source(self) -> pa.BufferReader:
        """The file for pyarrow."""
        return pa.BufferReader(pa.py_buffer(self._map))

    def check_size(self) -> None:
        """Raise ``ValueError`` where the file has become shorter: what was mapped is not there any more."""
        if (size := self._map.size()) < len(self.data):
            raise ValueError(f"{size} bytes are left of {len(self.data)}")

    def give(self, row: int, rows: int) -> memoryview | None:
        """The file once more, in memory in which the caller may do with this one of so many rows what it likes.

        A row is given away once, since what was done with it would be seen by the next who asks: None then, until all
        rows were given away and a new mapping begins. None also where the file can't be mapped again.
        """
        import torch

        if len(self._given_away) >= rows:
            self._given_away, self._to_give = set(), None
        if row in self._given_away:
            return None
        if self._to_give is None:
            try:
                # Unlike those of ``mmap`` this mapping holds no file open, and may live as long as any row of it does.
                whole = torch.from_file(str(self._path), shared=False, size=len(self.data), dtype=torch.uint8)
            except (RuntimeError, ValueError):
                return None
            self._to_give = whole.numpy().data
        self._given_away.add(row)
        return self._to_give

    def forget(self, first: int, end: int) -> None:
        """Let the system have the memory of these bytes back, which will not be needed soon."""
        page = mmap.PAGESIZE
        first = -(-first // page) * page
        if (size := end // page * page - first) > 0:
            self._map.madvise(mmap.MADV_DONTNEED, first, size)


class MappedColumns(Columns):
    """A row group of which small columns were read; blobs lie in the file."""

    def __init__(self, arrays: Mapping[str, pa.Array], places: Mapping[str, Places], data: memoryview) -> None:
        super().__init__(arrays)
        self._places, self._data = places, data

    def blob(self, name: str, number: int, memory: memoryview | None = None) -> memoryview | None:
        place = self._places[name][number]
        return None if place is None else (self._data if memory is None else memory)[place[0] : place[1]]

    def forget(self, number: int, shard: MappedShard) -> None:
        """Let the memory of a row go that was copied, and will not be asked for soon."""
        if (place := self._places["tokens"][number]) is not None:
            shard.forget(*place)


def blob_places(
    data: memoryview, metadata: pq.FileMetaData, group: int, numbers: Mapping[str, int]
) -> dict[str, Places] | None:
    """The places of all blobs of a row group; None where they can't be told. ``numbers`` of columns go by name."""
    chunks = metadata.row_group(group)
    places: dict[str, Places] = {}
    for name in BLOBS:
        number = numbers[name]
        of_column = value_places(data, chunks.column(number), metadata.schema.column(number))
        if of_column is None:
            return None
        places[name] = of_column
    return places
