"""How much of a file is missing at its end, by the sizes that its own outermost boxes announce.

Only what holds pictures counts. Where a layout tells no size, or none that makes sense, nothing is said to be missing.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from tokcli.media.plain_file import open_plain

_BOXES = frozenset(
    {b"ftyp", b"styp", b"moov", b"mdat", b"moof", b"sidx", b"free", b"skip", b"wide", b"uuid", b"meta", b"pdin"}
)
_MOST_BOXES = 10_000
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_LEAST_UNKNOWN_RIFF = 0x7FFF_0000


def absent_share(path: str) -> float:
    """Bytes missing over bytes announced, in [0, 1).

    Raises:
        OSError, MediaError: the file cannot be read.
    """
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(64)
        if head[4:8] in _BOXES:
            announced = _boxes(file, size)
        elif head.startswith(_EBML):
            announced = _segment(head)
        elif head.startswith(b"RIFF") and head[8:12] == b"AVI ":
            length = int.from_bytes(head[4:8], "little")
            announced = 8 + length if length < _LEAST_UNKNOWN_RIFF else 0
        else:
            announced = 0
    return max(0, announced - size) / announced if announced else 0.0


def _boxes(file: BinaryIO, size: int) -> int:
    """End of the last box of an MP4 or MOV file, if pictures are in it; 0 if not."""
    position = 0
    for _ in range(_MOST_BOXES):
        file.seek(position)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if kind not in _BOXES or length < 8 or position + length >= 1 << 62:
            return 0
        position += length
        if position >= size:
            return position if kind == b"mdat" else 0
    return 0


def _segment(head: bytes) -> int:
    """End of the segment of a Matroska or WebM file; 0 where it is not told, as in recordings of live streams."""
    length, used = _number(head[4:])
    start = 4 + used + length
    if head[start : start + 4] != _SEGMENT:
        return 0
    segment, used = _number(head[start + 4 :])
    return start + 4 + used + segment if segment else 0


def _number(data: bytes) -> tuple[int, int]:
    """An EBML number of variable length, and the bytes that it takes; 0 for one that says "unknown"."""
    if not data or not data[0]:
        return 0, 1
    used = 9 - data[0].bit_length()
    bits = 7 * used
    value = int.from_bytes(data[:used], "big") & ((1 << bits) - 1)
    return (0 if value == (1 << bits) - 1 else value), used
