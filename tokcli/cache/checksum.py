"""The checksum of one row, by which it can be trusted after it has left its page.

It covers all that the format says of a row but ``sequence``, which is the row's place and not its content, and the
user's own columns, which other programs may change and turn into other types. ``SPEC.md`` has the exact bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias
from zlib import crc32

import numpy as np

from tokcli.cache.row import StoredRow
from tokcli.cache.schema import BLOBS, CHECKED, CHECKSUM

_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False)
Bytes: TypeAlias = Any
"""A buffer of Arrow's or of a mapped file, an array, or None for a null."""


def row_checksum(row: StoredRow, blob: Callable[[str], Bytes]) -> int:
    """CRC-32 of a row of the data table. ``blob`` gives a binary column's bytes."""
    head = row.head
    small = {name: head[name] for name in CHECKED if name in head}
    contents: dict[str, Bytes] = {name: row.numbers(name) for name in ("times", "indices")}
    stats = row.stats() or ()
    blobs = {name: blob(name) for name in BLOBS}
    for name, content in (*contents.items(), *blobs.items()):
        small[name] = _size(content)
    small["stats"] = [[name, dtype, values.nbytes] for name, dtype, values in stats]
    crc = crc32(_JSON.encode(small).encode())
    for content in (*contents.values(), *(values for _, _, values in stats), *blobs.values()):
        if content is not None:
            crc = crc32(content, crc)
    return crc


def checksum_problem(row: StoredRow) -> str | None:
    """What is wrong with a row that carries its checksum; None where nothing is, or where it carries none."""
    told = row.head.get(CHECKSUM)
    if told is None or row_checksum(row, row.buffer) == told:
        return None
    return "its bytes are not those that were written, by its CRC"


def _size(content: Bytes) -> int | None:
    return None if content is None else content.nbytes if isinstance(content, np.ndarray) else len(content)
