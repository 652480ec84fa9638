"""What a cache holds about each item: the newest row of an id, in data or in errors, is its status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from tokcli.cache.layout import list_shards
from tokcli.cache.manifest import Manifest
from tokcli.cache.parquet import open_shard, read_columns
from tokcli.cache.part import Part
from tokcli.storage import Location
from tokcli.types import MediaItem

Status = Literal["new", "done", "failed", "changed"]


@dataclass(frozen=True, slots=True)
class Known:
    """The newest row of an id."""

    status: Literal["done", "failed"]
    source_bytes: int
    source_modified_ns: int
    source_hash: str
    """blake3 of the source file; empty for a failed item."""

    def compared(self, item: MediaItem, source_hash: Callable[[], str]) -> Status:
        """The status of ``item`` as it is on disk now.

        Equal size and modification time are trusted. For a finished item of equal size the content decides otherwise;
        for a failed one nothing is known of the content, so any difference makes it worth another try.
        """
        same_size = item.size_bytes == self.source_bytes
        same_time = item.modified_ns == self.source_modified_ns
        if self.status == "failed":
            return "failed" if same_size and same_time else "changed"
        if not same_size:
            return "changed"
        if same_time and item.modified_ns != 0:
            return "done"
        return "done" if source_hash() == self.source_hash else "changed"


def counts_of(state: Mapping[str, Known]) -> dict[str, int]:
    """``items`` that are done and those that ``failed``."""
    statuses = [known.status for known in state.values()]
    return {"items": statuses.count("done"), "failed": statuses.count("failed")}


def load_state(
    cache: Location, manifest: Manifest, part: Part | None = None, *, least: int = 0
) -> tuple[dict[str, Known], int]:
    """Status of every id, or of those of a part, and the next free sequence number, read from the committed shards.

    Shards with numbers below ``least`` are left out. Raises ``IntegrityError`` naming a shard that cannot be read.
    """
    state: dict[str, Known] = {}
    shards = list_shards(cache)
    for shard in shards if part is None or part.remembers else []:
        if shard.sequence < least:
            continue
        done = shard.table == "data"
        columns = ["id", "source_bytes", "source_modified_ns", *(["chunk", "source_blake3"] if done else [])]
        with open_shard(shard, manifest) as file:
            table = read_columns(shard, file, columns)
        hashes = table["source_blake3"].to_pylist() if done else [""] * len(table)
        chunks = table["chunk"].to_pylist() if done else [0] * len(table)
        columns_of = (table[name].to_pylist() for name in columns[:3])
        for item_id, size, modified, digest, chunk in zip(*columns_of, hashes, chunks):
            if chunk == 0 and (part is None or part.has(item_id)):
                state[item_id] = Known("done" if done else "failed", size, modified, digest)
    return state, shards[-1].sequence + 1 if shards else 1
