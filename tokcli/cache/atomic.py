"""Files that exist whole or not at all.

Temporary name in the same folder, flush, fsync, rename, fsync of the folder: a rename within one folder is atomic on
POSIX file systems, and without the two fsyncs a power cut may keep the new name and lose the bytes behind it. An
object store has one put for all of that: the temporary file lies on this machine, and the object appears whole.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from tokcli.cache.faults import fault_point
from tokcli.errors import CacheError
from tokcli.storage import Location, RemotePath, scratch_folder

TEMPORARY_PREFIX = ".tmp-"


def temporary_path(folder: Location, tag: str = "") -> Path:
    """A fresh temporary name in ``folder``, or on this machine for a folder that is not. It has no suffix, so that no
    ``*.parquet`` glob ever matches it.

    ``tag`` tells whose it is, of several that write at once.
    """
    place = scratch_folder() if isinstance(folder, RemotePath) else folder
    return place / f"{TEMPORARY_PREFIX}{tag}{'-' if tag else ''}{uuid.uuid4().hex}"


def remove_temporaries(folder: Location, may: Callable[[str], bool] = bool) -> int:
    """Delete what writers that were killed left in ``folder``, by names that ``may`` be; the caller holds the lock."""
    if isinstance(folder, RemotePath):  # none lie there
        return 0
    stale = [path for path in folder.glob(f"{TEMPORARY_PREFIX}*") if may(path.name)] if folder.is_dir() else []
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def sync_folder(folder: Location) -> None:
    """Make renames in ``folder`` survive a power cut, where the file system can sync a folder at all."""
    if isinstance(folder, RemotePath):  # a put that has come back is durable
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def publish(temporary: Path, final: Location, what: str = "") -> None:
    """Give a file that is complete and fsynced its name; ``what`` it is names the moments of ``faults``."""
    fault_point(f"{what}.after_fsync")
    if isinstance(final, RemotePath):
        final.put_file(temporary)
        temporary.unlink()
    else:
        temporary.replace(final)
    fault_point(f"{what}.after_rename")
    sync_folder(final.parent)


def write_atomically(path: Location, content: bytes, what: str = "") -> None:
    """Replace ``path`` by ``content`` in one step. Raises ``CacheError`` when it cannot be written."""
    fault_point(f"{what}.before_write")
    if isinstance(path, RemotePath):
        with writing(path.parent):
            path.put_bytes(content)
        return
    temporary = temporary_path(path.parent)
    try:
        with writing(path.parent), temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path, what)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(folder: Location) -> Iterator[None]:
    """Turn an ``OSError`` inside into one line that names the folder, the reason and what is safe."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        if isinstance(folder, RemotePath):  # what the server said is more than its number
            reason = error.strerror or reason
        raise CacheError(
            f"cannot write in {folder}: {reason}; what was committed before is intact: make room or mend the "
            "folder, then run the same command again"
        ) from error
