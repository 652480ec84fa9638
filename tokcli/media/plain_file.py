"""Opening what a name leads to only if it is a plain file: a pipe would wait for ever, a device has no end."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from tokcli.errors import MediaError


def check_plain(status: os.stat_result) -> None:
    """Raise ``MediaError`` for what is no plain file."""
    if stat.S_ISDIR(status.st_mode):
        raise MediaError("is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise MediaError("is not a plain file (a pipe, socket or device)")


def open_plain(path: str) -> BinaryIO:
    """Open a file for reading; ``path`` may hold surrogate escapes.

    Raises:
        MediaError: it is no plain file, also where it was one a moment ago.
        OSError, ValueError: it cannot be opened.
    """
    check_plain(os.stat(path))  # noqa: PTH116 - opening some devices alone has effects
    # Without waiting, in case it became a pipe just now.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_plain(os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
