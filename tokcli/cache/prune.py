"""Items taken out of a cache for good: rewriting what shares a shard with them, so that their bytes are gone."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tokcli.cache.index import build_index
from tokcli.cache.layout import Shard
from tokcli.cache.manifest import Manifest
from tokcli.cache.parquet import open_shard, read_columns
from tokcli.cache.rewrite import Rewriter, metadata_types, replace_shards
from tokcli.storage import Location


def prune_items(
    cache: Location,
    manifest: Manifest,
    ids: Collection[str],
    shards: Sequence[Shard],
    sequence: int,
    max_shard_bytes: int,
    max_shard_items: int,
) -> int:
    """Drop all rows of ``ids``, also superseded ones and failures; gives the next free sequence number.

    The caller holds the lock and has removed ``_SUCCESS``; ``shards`` are the cache's sound ones in the order of
    commits, ``sequence`` the first free number. Killed at any moment it leaves a cache in which some of the ids may
    still be, each as it was: doing it again drops the rest.
    """
    index = build_index(cache, manifest, shards)
    old = [shard for shard in shards if _has_any(shard, manifest, ids)]
    types = metadata_types((shard, manifest) for shard in old)
    rewriter = Rewriter(cache, manifest, sequence, types, max_shard_bytes, max_shard_items)
    replace_shards(index, manifest, old, rewriter, drop=ids)
    return rewriter.sequence


def _has_any(shard: Shard, manifest: Manifest, ids: Collection[str]) -> bool:
    with open_shard(shard, manifest) as file:
        return not set(read_columns(shard, file, ["id"])["id"].to_pylist()).isdisjoint(ids)
