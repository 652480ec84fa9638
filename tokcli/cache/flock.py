"""Locks that many may share, or one hold alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from tokcli.errors import CacheError


class LockFile:
    """An open file with the lock of ``flock`` on it, which the system gives back when its holder ends, however it ends.

    It is the lock that ``filelock`` takes: who holds it alone keeps out both kinds. Raises ``CacheError`` where the
    file system knows no such locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise CacheError(
                f"cannot write in {path.parent}: {error.strerror}; choose another output folder"
            ) from error

    def take(self, *, shared: bool = False) -> bool:
        """Take the lock, in place of the one that is held; False where others keep it from us."""
        import fcntl

        try:
            fcntl.flock(self._handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise CacheError(
                f"cannot lock {self.path}: {error.strerror}; writing a cache in parts needs a file system with flock"
            ) from error
        return True

    def note(self, text: str) -> None:
        """Write into the file who holds it, for people."""
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, text.encode(), 0)

    def unlock(self) -> None:
        """Give the lock back, and keep the file open."""
        import fcntl

        fcntl.flock(self._handle, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the lock back. Safe to call again."""
        if self._handle >= 0:
            self.unlock()  # by hand: a child that was forked meanwhile has the same open file
            os.close(self._handle)
            self._handle = -1


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock of this file alone."""
    file = LockFile(path)
    try:
        return not file.take(shared=True)
    finally:
        file.close()
