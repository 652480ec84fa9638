"""Taking what is damaged out of a cache, so that it is sound again, and telling what has to be made anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tokcli.cache.atomic import sync_folder, writing
from tokcli.cache.codebook import codebook_of
from tokcli.cache.faults import fault_point
from tokcli.cache.folder import clear_temporaries
from tokcli.cache.index import Index, build_index
from tokcli.cache.layout import MANIFEST, SUCCESS, Shard, foreign_files, list_shards
from tokcli.cache.lock import lock_cache
from tokcli.cache.manifest import FORMAT, Manifest, read_manifest
from tokcli.cache.parquet import open_shard, read_columns
from tokcli.cache.prune import prune_items
from tokcli.cache.rewrite import next_sequence
from tokcli.cache.success import read_success
from tokcli.cache.verify import Problem, shard_problems
from tokcli.cache.writer import SHARD_BYTES, SHARD_ITEMS
from tokcli.errors import CacheError, IntegrityError
from tokcli.storage import Location, only_local

DAMAGED = "damaged"
"""Folder within the cache that bad files are moved to: no reader looks there, and what can be saved is a person's to
decide."""


@dataclass(frozen=True)
class Repair:
    """What was wrong and what that costs."""

    problems: tuple[Problem, ...] = ()
    """Empty for a sound cache, of which nothing was touched."""
    moved: tuple[str, ...] = ()
    """Files that are in ``damaged`` now, by where they were."""
    redo: tuple[str, ...] = ()
    """Ids whose valid row was in a file that was moved."""
    unnamed: bool = False
    """Whether more items may be lost whose ids cannot be read."""


def repair_cache(path: str | Path, *, dry_run: bool = False) -> Repair:
    """Move bad shards, and files that are no shards, to ``damaged``; drop older rows of what was lost; mend the rest.

    ``_SUCCESS`` goes where something is lost, so that the cache counts as incomplete until a run has made it anew. A
    manifest whose notes are damaged is written anew where the shards confirm its configuration. Done twice it does
    nothing; killed at any moment it is to be done again. With ``dry_run`` it only looks.

    Raises ``IntegrityError`` where the manifest cannot be mended, ``CacheError`` where the codebook is lost,
    ``CacheLockedError`` where another process writes.
    """
    cache = only_local(path, "repairing", "copy the cache here, repair it, and copy it to a new place")
    lock = None if dry_run else lock_cache(_existing(cache))
    try:
        manifest, problems = _manifest(cache)
        codebook_of(cache, manifest)  # without it no token can be read: that is not for us to mend
        shards = list_shards(cache)
        foreign = foreign_files(cache)
        problems += [Problem(_name(cache, file), "is not a shard of this cache") for file in foreign]
        bad: list[Shard] = []
        for number, shard in enumerate(shards):
            found = [Problem(_name(cache, shard.path), what) for what in shard_problems(shard, manifest)]
            if number and shards[number - 1].sequence == shard.sequence:
                found.append(Problem(_name(cache, shard.path), "has the sequence number of another shard"))
            problems += found
            bad += [shard] if found else []
        sound = [shard for shard in shards if shard not in bad]
        index = build_index(cache, manifest, sound)
        redo, unnamed = _lost(bad, manifest, index)
        mark = _mark_problem(cache, index) if not bad else None
        problems += [] if mark is None else [mark]
        if dry_run or not problems:
            return Repair(tuple(problems), (), tuple(redo), unnamed or mark is not None)
        clear_temporaries(cache)
        if bad or mark is not None:
            _remove_mark(cache)
        if any(problem.file == MANIFEST for problem in problems):
            manifest.write(cache)
        # Before the newer rows go: an older one that comes to light would tell of a file or a failure that is no more.
        stale = {item_id for item_id in redo if item_id in index.items or item_id in index.failed}
        if stale:
            prune_items(cache, manifest, stale, sound, next_sequence(shards), SHARD_BYTES, SHARD_ITEMS)
        moved = [*(shard.path for shard in bad), *foreign]
        for file in moved:
            _move(cache, file)
        return Repair(
            tuple(problems), tuple(_name(cache, file) for file in moved), tuple(redo), unnamed or mark is not None
        )
    finally:
        if lock is not None:
            lock.release()


def _existing(cache: Path) -> Path:
    if not (cache / MANIFEST).exists():
        read_manifest(cache)  # says what is missing, before a lock is made in a folder that is no cache
    return cache


def _name(cache: Path, file: Location) -> str:
    assert isinstance(file, Path)  # as the cache is
    return str(file.relative_to(cache))


def _manifest(cache: Path) -> tuple[Manifest, list[Problem]]:
    """The manifest, and what is wrong with it though its configuration is that of the shards."""
    try:
        return read_manifest(cache), []
    except IntegrityError as error:
        damage = error
    manifest = replace(read_manifest(cache, trust=True), format=FORMAT)
    if not any(_agrees(shard, manifest) for shard in list_shards(cache)):
        raise IntegrityError(
            f"{damage}; no shard confirms what is left of its configuration, so it cannot be mended here"
        ) from damage
    return manifest, [Problem(MANIFEST, "is not what was written; its configuration is, but its notes may not be")]


def _agrees(shard: Shard, manifest: Manifest) -> bool:
    try:
        open_shard(shard, manifest).close()
    except CacheError:
        return False
    return True


def _lost(bad: Sequence[Shard], manifest: Manifest, index: Index) -> tuple[list[str], bool]:
    """Ids whose newest row stands in a bad shard, in order, and whether there may be others that cannot be read."""
    newest: dict[str, int] = {}
    unnamed = False
    for shard in bad:
        try:
            with open_shard(shard, manifest) as file:
                ids = read_columns(shard, file, ["id"])["id"].to_pylist()
        except CacheError:
            unnamed = True
            continue
        newest |= dict.fromkeys(ids, shard.sequence)
    lost = []
    for item_id, sequence in newest.items():
        place = index.items.get(item_id) or index.failed.get(item_id)
        if place is None or index.shards[place.shard].sequence < sequence:
            lost.append(item_id)
    return lost, unnamed


def _mark_problem(cache: Path, index: Index) -> Problem | None:
    """What is wrong with ``_SUCCESS`` over sound shards: it is damaged, or a shard was lost."""
    found = {"items": len(index.items), "failed": len(index.failed)}
    try:
        told = read_success(cache)
    except ValueError:
        return Problem(SUCCESS, "is damaged")
    if told is None or told == found:
        return None
    return Problem(SUCCESS, f"tells {told}, the shards hold {found}")


def _remove_mark(cache: Path) -> None:
    fault_point("repair.before_removing_success")
    with writing(cache):
        (cache / SUCCESS).unlink(missing_ok=True)
    sync_folder(cache)


def _move(cache: Path, file: Location) -> None:
    assert isinstance(file, Path)
    folder = cache / DAMAGED
    target, number = folder / file.name, 1
    while target.exists():  # of an earlier repair, where a copy of the same shard came back
        target, number = folder / f"{file.name}.{number}", number + 1
    fault_point("repair.before_move")
    with writing(cache):
        folder.mkdir(exist_ok=True)
        file.rename(target)
    fault_point("repair.after_move")
    sync_folder(folder)
    sync_folder(file.parent)
