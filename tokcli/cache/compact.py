"""Many small shards into few, in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokcli.cache.folder import clear_temporaries
from tokcli.cache.index import Index, build_index
from tokcli.cache.layout import TABLES, Shard
from tokcli.cache.lock import lock_cache
from tokcli.cache.manifest import read_manifest
from tokcli.cache.rewrite import Rewriter, metadata_types, next_sequence, replace_shards
from tokcli.cache.writer import SHARD_BYTES, SHARD_ITEMS
from tokcli.storage import only_local


@dataclass(frozen=True)
class Compaction:
    """What compacting did, or would do."""

    shards_before: int
    shards_after: int
    bytes_before: int
    bytes_after: int
    superseded: int
    """Items and failures that no longer counted, dropped."""


@dataclass(frozen=True)
class _Load:
    """How full a shard is."""

    shard: Shard
    items: int
    """Valid ones."""
    superseded: int
    num_bytes: int

    @property
    def valid_bytes(self) -> int:
        """An estimate: items of one shard are taken to be of one size."""
        return self.num_bytes * self.items // max(1, self.items + self.superseded)


def compact_cache(
    path: str | Path, *, dry_run: bool = False, max_shard_bytes: int = SHARD_BYTES, max_shard_items: int = SHARD_ITEMS
) -> Compaction:
    """Rewrite shards that are less than half full, or hold superseded rows, into as few as hold them.

    The items and their bytes stay, and so does the mark of being complete; their order changes, as rewritten items
    count as newest. Killed at any moment it leaves a cache of the same items. With ``dry_run`` nothing is written, and
    what would come out is estimated.

    Raises ``CacheError`` for a path that is no cache, ``CacheLockedError`` where another process writes to it,
    ``IntegrityError`` for a damaged shard, which is left as it is.
    """
    cache = only_local(path, "compacting", "copy the cache here, compact it, and copy it to a new place")
    limits = (max_shard_bytes, max_shard_items)
    manifest = read_manifest(cache)
    lock = None if dry_run else lock_cache(cache)
    try:
        index = build_index(cache, manifest)
        loads = _loads(index)
        chosen = _chosen(loads, *limits)
        kept = [load.num_bytes for load in loads if load not in chosen]
        if dry_run:
            made = [load.valid_bytes for load in chosen]
            num_made = sum(_packed([load for load in chosen if load.shard.table == table], *limits) for table in TABLES)
        else:
            clear_temporaries(cache)
            old = [load.shard for load in chosen]
            types = metadata_types((shard, manifest) for shard in old)
            rewriter = Rewriter(cache, manifest, next_sequence(index.shards), types, *limits)
            replace_shards(index, manifest, old, rewriter)
            made = [shard.stat().st_size for shard in rewriter.shards]
            num_made = len(made)
        return Compaction(
            len(loads),
            len(kept) + num_made,
            sum(load.num_bytes for load in loads),
            sum(kept) + sum(made),
            sum(load.superseded for load in chosen),
        )
    finally:
        if lock is not None:
            lock.release()


def _loads(index: Index) -> list[_Load]:
    valid = [0] * len(index.shards)
    for place in (*index.items.values(), *index.failed.values()):
        valid[place.shard] += 1
    return [
        _Load(shard, items, stored - items, shard.path.stat().st_size)
        for shard, items, stored in zip(index.shards, valid, index.stored)
    ]


def _chosen(loads: Sequence[_Load], max_bytes: int, max_items: int) -> list[_Load]:
    """What is worth rewriting, in the order of commits: what gets fewer, or smaller."""
    chosen = []
    for table in TABLES:
        small = [
            load
            for load in loads
            if load.shard.table == table
            and (load.superseded or not load.items or (load.num_bytes < max_bytes / 2 and load.items < max_items / 2))
        ]
        if any(load.superseded for load in small) or _packed(small, max_bytes, max_items) < len(small):
            chosen += small
    return sorted(chosen, key=lambda load: load.shard)


def _packed(loads: Sequence[_Load], max_bytes: int, max_items: int) -> int:
    """About how many shards these become."""
    items, num_bytes = sum(load.items for load in loads), sum(load.valid_bytes for load in loads)
    return max(-(-items // max_items), -(-num_bytes // max_bytes)) if items else 0
