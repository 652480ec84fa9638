"""Where the values of a binary column stand in a Parquet file: what is stored as it is can be used where it lies.

Read are pages as a cache's own are: plain, not compressed, of the first kind, by the rules of the format
(https://github.com/apache/parquet-format: ``Encodings.md`` and ``parquet.thrift``). Of all else, and of bytes that make
no sense, nothing is told: pyarrow then reads the column, and says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from struct import Struct
from struct import error as StructError
from typing import Any, TypeAlias

import pyarrow.parquet as pq

Places: TypeAlias = list[tuple[int, int] | None]
"""Of each value of a column the first byte in the file and the one behind the last; None for a null."""

_DATA_PAGE, _PLAIN = 0, 0
_TYPE, _UNCOMPRESSED, _COMPRESSED, _DATA_HEADER = 1, 2, 3, 5
_VALUES, _ENCODING = 1, 2
"""Numbers of fields in ``PageHeader`` and ``DataPageHeader``."""
_LENGTH = Struct("<I")
_VARINT_BYTES = 10
_DEEPEST = 3
"""A page's header holds that of its kind, and this one statistics."""


def value_places(data: memoryview, chunk: pq.ColumnChunkMetaData, column: pq.ColumnSchema) -> Places | None:
    """The places of all values of a binary column in one row group; ``data`` is the whole file.

    None where its pages are of another kind, or are not what their headers say.
    """
    flat = column.max_repetition_level == 0 and column.max_definition_level <= 1
    if chunk.physical_type != "BYTE_ARRAY" or chunk.compression != "UNCOMPRESSED" or not flat:
        return None
    if chunk.has_dictionary_page:
        return None
    start, count = chunk.data_page_offset, chunk.num_values
    chunk_bytes = data[: start + chunk.total_compressed_size]
    nullable = column.max_definition_level == 1
    places: Places = []
    try:
        while len(places) < count:
            start = _page(chunk_bytes, start, nullable=nullable, places=places, most=count - len(places))
    except (IndexError, ValueError, StructError):
        return None
    return places if len(places) == count else None


def _page(data: memoryview, start: int, *, nullable: bool, places: Places, most: int) -> int:
    """Add at most so many values of the page that begins at ``start``; gives the end of the page."""
    header, at = _struct(data, start)
    kind, size = header.get(_DATA_HEADER), header.get(_COMPRESSED)
    if not isinstance(kind, dict) or not isinstance(size, int):
        raise ValueError("not the header of a page of data")
    end, count = at + size, kind.get(_VALUES)
    plain = header.get(_TYPE) == _DATA_PAGE and kind.get(_ENCODING) == _PLAIN and size == header.get(_UNCOMPRESSED)
    if not plain or not at <= end <= len(data) or not isinstance(count, int) or not 0 < count <= most:
        raise ValueError("not a plain page")
    levels = None
    if nullable:
        (length,) = _LENGTH.unpack_from(data, at)
        at += 4 + length
        levels = _levels(data[at - length : at], count)
    unpack, add = _LENGTH.unpack_from, places.append
    for there in repeat(True, count) if levels is None else levels:
        if there:
            first = at + 4
            at = first + unpack(data, at)[0]
            add((first, at))
        else:
            add(None)
    if at != end:
        raise ValueError("the values are not the page")
    return end


def _levels(data: memoryview, count: int) -> Iterator[bool]:
    """Which values are there: levels of one bit, in runs and packed by eight."""
    at, left = 0, count
    while left > 0:
        header, at = _varint(data, at)
        if header & 1:
            packed = data[at : at + (header >> 1)]
            at += len(packed)
            if not packed:
                raise ValueError("a run of nothing")
            bits = [bool(byte >> bit & 1) for byte in packed for bit in range(8)][:left]
        else:
            bits = [bool(data[at] & 1)] * min(header >> 1, left)
            at += 1
        if not bits:
            raise ValueError("a run of nothing")
        yield from bits
        left -= len(bits)


def _struct(data: memoryview, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """A struct in Thrift's compact protocol, its fields by number, and where it ends."""
    if depth > _DEEPEST:
        raise ValueError("structs in structs")
    fields: dict[int, Any] = {}
    number = 0
    while (head := data[at]) != 0:
        at += 1
        kind, step = head & 15, head >> 4
        if step:
            number += step
        else:
            number, at = _integer(data, at)
        if kind in (1, 2):
            fields[number] = kind == 1
        elif kind in (4, 5, 6):
            fields[number], at = _integer(data, at)
        elif kind == 8:
            length, at = _varint(data, at)
            at += length
        elif kind == 12:
            fields[number], at = _struct(data, at, depth + 1)
        else:
            raise ValueError(f"a field of kind {kind}, which headers of such pages do not have")
    return fields, at + 1


def _integer(data: memoryview, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_VARINT_BYTES):
        byte = data[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a number without an end")
