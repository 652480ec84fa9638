"""The checksum of one row, by which it can be trusted after it has left its page.

It covers all that the format says of a row but ``sequence``, which is the row's place and not its content, and the
user's own columns, which other programs may change and turn into other types. ``SPEC.md`` has the exact bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from zlib_ng.zlib_ng import crc32

from tokcli.cache.row import StoredRow
from tokcli.cache.schema import BLOBS, CHECKED, CHECKSUM

_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
Bytes: TypeAlias = Any
"""A buffer of Arrow's, an array, or None for a null."""


def row_checksum(row: StoredRow, blob: Callable[[str], Bytes], head: Mapping[str, Any] | None = None) -> int:
    """CRC-32 of a row of the data table. ``blob`` gives a binary column's bytes; ``head`` the small columns."""
    head = row.head() if head is None else head
    small = {name: head[name] for name in CHECKED if name in head}
    contents: dict[str, Bytes] = {name: row.numbers(name) for name in ("times", "indices")}
    stats = row["stats"] or ()
    values = [np.array(stat["values"], "<f8") for stat in stats]
    blobs = {name: blob(name) for name in BLOBS}
    small |= {name: _size(content) for name, content in (contents | blobs).items()}
    small["stats"] = [[stat["name"], stat["dtype"], array.nbytes] for stat, array in zip(stats, values)]
    crc = crc32(_JSON.encode(small).encode())
    for content in (*contents.values(), *values, *blobs.values()):
        if content is not None:
            crc = crc32(content, crc)
    return crc


def checksum_problem(row: StoredRow, head: Mapping[str, Any] | None = None) -> str | None:
    """What is wrong with a row that carries its checksum; None where nothing is, or where it carries none."""
    head = row.head() if head is None else head
    told = head.get(CHECKSUM)
    if told is None or row_checksum(row, row.buffer, head) == told:
        return None
    return "its bytes are not those that were written, by its CRC"


def _size(content: Bytes) -> int | None:
    return None if content is None else content.nbytes if isinstance(content, np.ndarray) else content.size
