"""A folder that exists whole or not at all.

It is filled under a temporary name beside its own, and renamed when everything in it is on the disk. What a killed
export left is removed by the next one to the same place: a lock, which ends with its process, tells it from one that is
still being filled.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tokcli.errors import TokcliError, UsageError
from tokcli.storage import Location

ABOUT = "export.json"
"""Says what the folder is; only a folder that has it is overwritten."""
_LOCK, _OLD = ".lock", "-old"


def check_output(output: Path, cache: Location, *, overwrite: bool) -> None:
    """Raise ``UsageError`` unless an export may be written to ``output``."""
    own, source = output.resolve(), cache.resolve()
    if isinstance(source, Path) and (own == source or source in own.parents or own in source.parents):
        raise UsageError(f"{output} and the cache {cache} must not be inside one another; name another output folder")
    _restore(output)
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise UsageError(f"{output} is a file or a link; name a folder for the export")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not (output / ABOUT).is_file():
        raise UsageError(f"{output} holds files that are no export of a cache; name a new or empty folder")
    if not overwrite:
        raise UsageError(f"{output} holds an export already; name another folder, or replace it with --overwrite")


@contextlib.contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; it becomes ``output`` when the context ends without an exception.

    Raises:
        TokcliError: The disk refuses. Nothing is left then, and what ``output`` held before is there unchanged.
    """
    temporary = output.parent / f"{_prefix(output)}{uuid.uuid4().hex}"
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(output)
        temporary.mkdir()
        lock = FileLock(temporary / _LOCK)
        try:
            with lock:
                yield temporary
                _sync(temporary)
            (temporary / _LOCK).unlink(missing_ok=True)
            _take_place(temporary, output)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise TokcliError(
            f"cannot write {output}: {reason}; nothing of this export was left behind: make room or mend the folder, "
            "then run the same command again"
        ) from error


def write_about(folder: Path, about: dict[str, Any]) -> None:
    """Write what the export is."""
    (folder / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def measure(folder: Path) -> tuple[int, int]:
    """Number of files below ``folder``, and their bytes."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def _prefix(output: Path) -> str:
    return f".{output.name}.tmp-"


def _temporaries(output: Path, end: str = "") -> Iterator[Path]:
    """What exports to ``output`` have left, or are filling."""
    return output.parent.glob(f"{glob.escape(_prefix(output))}*{end}")


def _restore(output: Path) -> None:
    """Put back what an export replaced that was killed between the two renames of doing so."""
    replaced = next(_temporaries(output, _OLD), None) if not output.exists() else None
    if replaced is not None:
        replaced.rename(output)


def _remove_stale(output: Path) -> None:
    for left in _temporaries(output):
        with contextlib.suppress(Timeout), FileLock(left / _LOCK, timeout=0):
            shutil.rmtree(left, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make all that was written survive a power cut, folders where the file system can."""
    for path in (*folder.rglob("*"), folder):
        with contextlib.suppress(PermissionError):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _take_place(temporary: Path, output: Path) -> None:
    """Rename ``temporary`` to ``output``, and put away what was there."""
    old = temporary.with_name(temporary.name + _OLD)
    if output.exists():
        output.rename(old)
    try:
        temporary.rename(output)
    except OSError:
        if old.exists():
            old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)
