"""Whether a page of a Parquet file is the one that was written, by the CRC-32 in its header."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from zlib_ng.zlib_ng import crc32

_NEXT_I32 = 0x15
"""In Thrift's compact protocol: the field behind the last one, an integer of 32 bits."""
_DATA_PAGE = 0
_VARINT_BYTES = 5
_HEADER_BYTES = 4 * (1 + _VARINT_BYTES)


def is_whole(page: npt.NDArray[np.uint8]) -> bool:
    """Of uint8 (n,), a data page with its header, whether its header tells the CRC of its contents, and the right one.

    A page header begins with four numbers: the kind of page, its sizes before and after compression, and the CRC
    (https://github.com/apache/parquet-format, ``parquet.thrift``). What lies behind them reaches to the contents, which
    are last.
    """
    header, at, numbers = page[:_HEADER_BYTES].tobytes(), 0, []
    try:
        for _ in range(4):
            number, at = _number(header, at)
            numbers.append(number)
    except (IndexError, ValueError):
        return False
    kind, _, size, crc = numbers
    if kind != _DATA_PAGE or not 0 <= size <= len(page) - at:
        return False
    contents: Any = page[len(page) - size :]
    return crc32(contents) == crc & 0xFFFFFFFF


def _number(header: bytes, at: int) -> tuple[int, int]:
    """The field at ``at``, and where the next one begins."""
    if header[at] != _NEXT_I32:
        raise ValueError("another field")
    value = 0
    for place in range(_VARINT_BYTES):
        byte = header[at + 1 + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return (value >> 1) ^ -(value & 1), at + 2 + place
    raise ValueError("a number without an end")
