"""Caches of one configuration into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokcli.cache.codebook import codebook_of
from tokcli.cache.folder import make_folder, prepare
from tokcli.cache.index import Place, build_index
from tokcli.cache.layout import MANIFEST, list_shards
from tokcli.cache.manifest import Manifest
from tokcli.cache.reader import Cache, open_cache
from tokcli.cache.rewrite import Rewriter, metadata_types, next_sequence
from tokcli.cache.success import write_success
from tokcli.cache.unlocked import lock_of
from tokcli.cache.writer import SHARD_BYTES, SHARD_ITEMS
from tokcli.errors import CacheConflictError, UsageError
from tokcli.storage import location

OnConflict = Literal["first", "newest"]
MERGED = "merged_from"
"""Key of the manifest's information that names the caches."""
SHOWN = 5
"""Conflicting ids that the refusal names."""


@dataclass(frozen=True)
class Merge:
    """What merging did."""

    items: int
    """In the merged cache."""
    failed: int
    copied: int
    """Items and failures that were copied in this run."""
    conflicts: tuple[str, ...]
    """Ids of which the caches held different contents, and one was chosen."""
    complete: bool
    """Whether all caches were, so that this one is."""


@dataclass(frozen=True)
class _Claim:
    """Which cache's row is to stand for an id."""

    source: int
    place: Place
    source_hash: str = ""
    """Empty for a failure."""
    modified_ns: int = 0


def merge_caches(
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    on_conflict: OnConflict | None = None,
    max_shard_bytes: int = SHARD_BYTES,
    max_shard_items: int = SHARD_ITEMS,
) -> Merge:
    """Bring the valid rows of several caches into one, which may exist and then counts as the first of them.

    An item that several caches have of the same source file is taken from the first; a failure stands only where no
    cache has the item. Items of one id and different source files are refused, unless ``on_conflict`` says to take the
    ``first`` cache's or the one of the file modified last. Every row is checked and copied, none is decoded. Killed at
    any moment, the same call goes on.

    Raises ``CacheConflictError`` where configurations differ, ``UsageError`` for conflicts and folders that cannot be
    the output, ``IntegrityError`` for a damaged source; nothing was written before these but copies of sound rows.
    """
    folder = location(output)
    given = [open_cache(path) for path in paths]
    for source in given:
        if source.path.resolve() == folder.resolve():
            raise UsageError(f"{folder} is one of the caches to merge; name another folder with -o")
    before = [open_cache(folder)] if (folder / MANIFEST).exists() else []
    sources = [*before, *given]
    manifest = _one_configuration(sources, [str(path) for path in paths])
    claims, conflicts = _claims(sources, on_conflict)
    make_folder(folder)
    lock = lock_of(folder, None)
    try:
        prepare(folder, manifest, overwrite=False)
        if (codebook := codebook_of(sources[0].path, manifest)) is not None:
            codebook.save(folder)
        types = metadata_types((shard, source.manifest) for source in sources for shard in source.index.shards)
        sequence = next_sequence(list_shards(folder))
        rewriter = Rewriter(folder, manifest, sequence, types, max_shard_bytes, max_shard_items)
        copied = sum(_copy(sources[number], claims[number], rewriter) for number in range(len(before), len(sources)))
        index = build_index(folder, manifest)
        # An output that was there and incomplete can only become complete where it is what a merge of these left.
        of_this_merge = all(one.manifest.information.get(MERGED) == manifest.information[MERGED] for one in before)
        complete = all(source.complete for source in (given if of_this_merge else sources))
        if complete:
            write_success(folder, {"items": len(index.items), "failed": len(index.failed)})
        return Merge(len(index.items), len(index.failed), copied, tuple(conflicts), complete)
    finally:
        lock.release()


def _one_configuration(sources: Sequence[Cache], paths: list[str]) -> Manifest:
    """The first one's manifest, if all agree with it."""
    first = sources[0]
    for other in sources[1:]:
        if found := first.manifest.differing(other.manifest):
            listing = "\n".join(f"  {key}: {one} in {first.path}, {two} in {other.path}" for key, one, two in found)
            raise CacheConflictError(
                f"{other.path} was made with another configuration than {first.path}:\n{listing}\n"
                "only caches of one configuration can be merged"
            )
    information = {**first.manifest.information, MERGED: paths}
    return Manifest(first.manifest.configuration, information)


def _claims(sources: Sequence[Cache], on_conflict: OnConflict | None) -> tuple[list[list[Place]], list[str]]:
    """The rows to take of each source, and the ids of which contents were to choose from."""
    claims: dict[str, _Claim] = {}
    conflicts: dict[str, None] = {}
    for number, source in enumerate(sources):
        columns = ("id", "source_blake3", "source_modified_ns")
        table = source.table(columns=columns)
        for item_id, digest, modified_ns in zip(*(table[name].to_pylist() for name in columns)):
            new = _Claim(number, source.index.items[item_id], digest, modified_ns)
            old = claims.get(item_id)
            if old is None or not old.source_hash:
                claims[item_id] = new
            elif old.source_hash != digest:
                conflicts[item_id] = None
                if on_conflict == "newest" and modified_ns > old.modified_ns:
                    claims[item_id] = new
        for item_id, place in source.index.failed.items():
            claims.setdefault(item_id, _Claim(number, place))
    if conflicts and on_conflict is None:
        named = ", ".join(list(conflicts)[:SHOWN]) + (" ..." if len(conflicts) > SHOWN else "")
        raise UsageError(
            f"{len(conflicts)} items were made of different files under one id ({named}); take those of the first "
            "cache with --on-conflict first, or of the file modified last with --on-conflict newest"
        )
    places: list[list[Place]] = [[] for _ in sources]
    for claim in claims.values():
        places[claim.source].append(claim.place)
    return places, list(conflicts)


def _copy(source: Cache, places: Sequence[Place], rewriter: Rewriter) -> int:
    """Copy these rows; durable when it returns."""
    by_shard: dict[int, list[Place]] = {}
    for place in places:
        by_shard.setdefault(place.shard, []).append(place)
    try:
        for number in sorted(by_shard):
            for _ in rewriter.take(source.index.shards[number], source.manifest, by_shard[number]):
                if rewriter.full:
                    rewriter.commit()
        rewriter.commit()
    finally:
        rewriter.abort()
    return len(places)
