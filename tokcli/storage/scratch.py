"""A temporary folder on this machine that a later run removes where this one was killed."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

PREFIX = "tokcli-files-"
_LOCK = ".lock"


class Scratch:
    """A folder in the system's folder for temporary files (``TMPDIR``); a context manager.

    Its owner holds a lock in it, which the system gives back however a process ends: folders whose lock is free are
    of processes that were killed, and are removed when the next one is made.
    """

    def __init__(self) -> None:
        remove_stale()
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
            self._lock = FileLock(self.path / _LOCK)
            # Between the lock's file and the lock another process may take the folder for one that was left behind.
            with contextlib.suppress(FileNotFoundError, Timeout):
                self._lock.acquire(timeout=0)
                if (self.path / _LOCK).exists():
                    return
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


_of_process: tuple[int, Scratch] | None = None


def scratch_folder() -> Path:
    """A folder for this process, which is gone when the process ends."""
    global _of_process
    if _of_process is None or _of_process[0] != os.getpid():  # a forked child must not use, or remove, its parent's
        scratch = Scratch()
        _of_process = (os.getpid(), scratch)
        atexit.register(_close, scratch, os.getpid())
    return _of_process[1].path


def _close(scratch: Scratch, process: int) -> None:
    if process == os.getpid():
        scratch.close()


def remove_stale() -> int:
    """Remove what killed processes left; the number of folders."""
    removed = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = folder / _LOCK
        # Without a lock file it is being made this very moment, or is not ours to judge.
        with contextlib.suppress(OSError, Timeout):
            if lock.is_file():
                with FileLock(lock, timeout=0):
                    shutil.rmtree(folder)
                removed += 1
    return removed
