"""One writer to a cache, or one to each of its parts."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from tokcli.cache.flock import is_held
from tokcli.cache.layout import LOCK
from tokcli.cache.part import Part
from tokcli.errors import CacheError


class CacheLockedError(CacheError):
    """Another process is writing to the cache."""

    exit_code = 2


def lock_cache(cache: Path) -> BaseFileLock:
    """Take the writer's lock of ``cache``, or raise ``CacheLockedError`` at once.

    The operating system gives the lock back when its holder ends, however it ends; the file stays.
    """
    path = cache / LOCK
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        parts = writing_parts(cache)
        who = f"part {parts[0]}, {holder(cache / parts[0].lock_name)}" if parts else holder(path)
        raise CacheLockedError(
            f"{cache} is being written by {who}; wait for it, stop it, or choose another output folder"
        ) from None
    except OSError as error:
        raise CacheError(f"cannot write in {cache}: {error.strerror}; choose another output folder") from error
    with contextlib.suppress(OSError):  # only for the message above; a full disk is told of by what matters
        path.write_text(own_name())
    return lock


def own_name() -> str:
    return f"{os.getpid()} {socket.gethostname()}\n"


def holder(path: Path) -> str:
    """Who wrote its name into a lock file."""
    words = path.read_text(errors="replace").split()
    return f"process {words[0]} on {words[1]}" if len(words) == 2 else "another process"


def writing_parts(cache: Path, *, but: int = 0) -> list[Part]:
    """The parts that are being written, but for those of so many."""
    named = [(part, path) for path in cache.iterdir() if (part := Part.of_lock(path.name)) is not None]
    return sorted(part for part, path in named if part.count != but and is_held(path))
