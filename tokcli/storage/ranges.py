"""Reading parts of an object: as a file, of which what will be wanted can be asked for together."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokcli.storage.remote import RemotePath

GAP_BYTES = 256 << 10
"""Spans this near to each other are read by one request: the bytes between cost less than another one."""
STREAM_BYTES = 8 << 20
"""Read by one request where all is read in order."""

Span = tuple[int, int]
"""From the first byte up to, not including, the second."""


class RangeFile(io.RawIOBase):
    """An object as a file for reading. Every read is a request, but for what ``want`` has fetched."""

    def __init__(self, path: RemotePath) -> None:
        super().__init__()
        self.path = path
        self._size = path.look_up().size_bytes
        self._at = 0
        self._blocks: list[tuple[int, bytes]] = []

    def want(self, spans: Iterable[Span]) -> None:
        """Fetch spans at once, near ones together, in the place of what was fetched before.

        Nothing is asked for where all of it is there already. Raises ``OSError``.
        """
        wanted = joined(spans)
        if not all(self.has(span) for span in wanted):
            self._blocks = [(start, block) for (start, _), block in zip(wanted, self.path.read_ranges(wanted))]

    def has(self, span: Span) -> bool:
        """Whether all of it was fetched."""
        return self._found(*span) is not None

    def forget(self) -> None:
        """Let go of what was fetched."""
        self._blocks = []

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        start, end = self._at, min(self._size, self._at + len(buffer))
        if end <= start:
            return 0
        found = self._found(start, end)
        if found is None:
            found = memoryview(self.path.read_ranges([(start, end)])[0])
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def _found(self, start: int, end: int) -> memoryview | None:
        for first, block in self._blocks:
            if first <= start and end <= first + len(block):
                return memoryview(block)[start - first : end - first]
        return None


def joined(spans: Iterable[Span]) -> list[Span]:
    """The same bytes in fewer spans, in order: those that lie near each other become one."""
    result: list[Span] = []
    for start, end in sorted(spans):
        if result and start - result[-1][1] <= GAP_BYTES:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def last_bytes(path: Path | RemotePath, count: int) -> tuple[bytes, int]:
    """The end of a file or an object, ``count`` bytes at most, and its size. Raises ``OSError``."""
    if isinstance(path, Path):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - count))
            return file.read(count), size
    size = path.look_up().size_bytes
    blocks: Sequence[bytes] = path.read_ranges([(max(0, size - count), size)]) if size else [b""]
    return blocks[0], size
