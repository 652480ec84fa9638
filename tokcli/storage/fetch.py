"""Copying an object to this machine."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tokcli.errors import TokcliError
from tokcli.storage.failures import read
from tokcli.storage.scratch import Scratch
from tokcli.storage.urls import filesystem_of, is_s3, is_url


class FetchStoppedError(TokcliError):
    """The run ends; the copy is not wanted any more."""


class Fetch:
    """Copies the object of a URL to ``target``.

    Args:
        size_bytes: what it has to have, by the listing; 0 where that is not known.
        stopped: asked after every block; true ends the copy with ``FetchStoppedError``.
    """

    def __init__(
        self, url: str, target: Path, size_bytes: int = 0, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        self.url, self.target, self.size_bytes, self.stopped = url, target, size_bytes, stopped
        self.tries = 0

    def run(self) -> None:
        """Copy it.

        Raises ``OSError``: it is gone, may not be read, has another size, or could not be read in ``TRIES`` tries.
        Nothing is left at ``target`` then, nor after ``FetchStoppedError``. ``UsageError`` for a URL of no known kind.
        """
        try:
            read(self._once)
            found = self.target.stat().st_size
            if self.size_bytes and found != self.size_bytes:
                raise OSError(
                    errno.EIO,
                    f"changed: {self.size_bytes:,} bytes when it was listed, {found:,} when it was read; run again",
                )
        except BaseException:
            with contextlib.suppress(OSError):
                self.target.unlink(missing_ok=True)
            raise

    def _once(self) -> None:
        self.tries += 1
        filesystem, path = filesystem_of(self.url)
        filesystem.get_file(path, str(self.target), callback=_watch(self.stopped), **_one_stream(filesystem))


@contextlib.contextmanager
def at_hand(path: str) -> Iterator[str]:
    """A path of this machine as it is; for a URL that of a copy, for as long. Raises what ``Fetch.run`` does."""
    if not is_url(path):
        yield path
        return
    with Scratch() as scratch:
        copy = scratch.path / "object"
        Fetch(path, copy).run()
        yield str(copy)


def _one_stream(filesystem: Any) -> dict[str, Any]:
    """s3fs reads large objects in ten parts at once, 50 MiB of memory each; one request that streams needs none."""
    return {"max_concurrency": 1} if is_s3(filesystem) else {}


def _watch(stopped: Callable[[], bool]) -> Any:
    from fsspec.callbacks import Callback

    class Watch(Callback):
        def relative_update(self, inc: int = 1) -> None:
            if stopped():
                raise FetchStoppedError

    return Watch()
