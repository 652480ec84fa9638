"""Where there are no locks: caches on object stores.

Nothing there tells that a writer has died, so a lock would outlive it. Two writers at once do no harm: shards are named
by their content, a put replaces nothing but the same, and of two rows of an item the newest counts. They do the work
twice, though, and ``--overwrite`` takes away what the other has written.
"""

from __future__ import annotations

from filelock import BaseFileLock

from tokcli.cache.lock import lock_cache
from tokcli.cache.part import Part
from tokcli.cache.part_lock import PartLock
from tokcli.storage import Location, RemotePath


class Unlocked:
    """Stands for the lock of a writer; keeps nobody out."""

    is_locked = True

    def release(self) -> None:
        self.is_locked = False


class UnlockedPart(Unlocked):
    """Stands for the lock of a part's writer. Nobody knows whether it is the last to end: each one looks whether all
    is there, and what it sees there has been put, so the last one sees everything."""

    def opened(self) -> None:
        pass

    def leave(self) -> bool:
        return True


AnyPartLock = PartLock | UnlockedPart


def lock_of(cache: Location, part: Part | None) -> BaseFileLock | Unlocked | AnyPartLock:
    """The lock of the writer of a cache, or of a part of it. Raises ``CacheLockedError`` where another has it."""
    if isinstance(cache, RemotePath):
        return Unlocked() if part is None else UnlockedPart()
    return lock_cache(cache) if part is None else PartLock(cache, part)
