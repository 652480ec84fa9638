"""Names in a cache folder: which file is what, and in which order the shards were committed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tokcli.storage import Location, RemotePath

Table = Literal["data", "errors"]
TABLES: tuple[Table, ...] = ("data", "errors")

MANIFEST = "manifest.json"
SUCCESS = "_SUCCESS"
LOCK = ".lock"

_PART = re.compile(r"part-(\d{6,18})-([0-9a-f]{8})\.parquet")


@dataclass(frozen=True, order=True)
class Shard:
    """One committed shard."""

    sequence: int
    """Its place in the one order of commits over both tables."""
    digest: str
    """The first 8 hex digits of the blake3 of the file's footer."""
    table: Table
    path: Location


def shard_name(sequence: int, digest: str) -> str:
    """``part-000012-1f2e3d4c.parquet``"""
    return f"part-{sequence:06d}-{digest}.parquet"


def list_shards(cache: Location) -> list[Shard]:
    """The committed shards of both tables in the order of commits. Other files are left out."""
    shards = []
    for table in TABLES:
        folder = cache / table
        for path in _entries(folder):
            if match := _PART.fullmatch(path.name):
                shards.append(Shard(int(match[1]), match[2], table, path))
    return sorted(shards)


def _entries(folder: Location) -> Iterable[Location]:
    if isinstance(folder, RemotePath):
        return folder.glob("part-*")
    return folder.iterdir() if folder.is_dir() else ()


def foreign_files(cache: Location) -> list[Location]:
    """Parquet files in the tables' folders that tokcli did not name: it ignores them, but globs would read them."""
    own = {shard.path for shard in list_shards(cache)}
    return sorted(path for table in TABLES for path in (cache / table).glob("*.parquet") if path not in own)
