"""One writer to a cache."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from tokcli.cache.layout import LOCK
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
        raise CacheLockedError(
            f"{cache} is being written by {_holder(path)}; wait for it, stop it, or choose another output folder"
        ) from None
    except OSError as error:
        raise CacheError(f"cannot write in {cache}: {error.strerror}; choose another output folder") from error
    with contextlib.suppress(OSError):  # only for the message above; a full disk is told of by what matters
        path.write_text(f"{os.getpid()} {socket.gethostname()}\n")
    return lock


def _holder(path: Path) -> str:
    words = path.read_text(errors="replace").split()
    return f"process {words[0]} on {words[1]}" if len(words) == 2 else "another process"
