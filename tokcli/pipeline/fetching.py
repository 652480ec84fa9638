"""Items in the order in which decoders can have them: files of this machine at once, objects when they are copied.

Decoders open local files in processes that may be killed at any moment, so an object is copied first, a few ahead of
them, into a folder that the next run removes if this one is killed.
"""

from __future__ import annotations

import errno
import shutil
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tokcli.errors import TokcliError
from tokcli.media import Limits
from tokcli.pipeline.messages import Failed
from tokcli.storage import Scratch, is_url
from tokcli.storage.fetch import Fetch
from tokcli.types import MediaItem

REQUESTS_AT_ONCE = 4
MOST_BYTES = 8 << 30
"""Of copies at a time, those that decoders work on included; one larger object comes alone."""
SPARE_BYTES = 256 << 20
"""Left free on the disk."""


@dataclass(frozen=True)
class Ready:
    """An item that a decoder can have, or that failed on the way."""

    item: MediaItem
    path: str
    """On this machine."""
    tries: int = 1
    failed: Failed | None = None


@dataclass
class _Slot:
    item: MediaItem
    copying: Future[Ready] | None

    @property
    def ready(self) -> bool:
        return self.copying is None or self.copying.done()


class Fetcher:
    """Hands out items, until ``close``. ``ahead`` objects are copied before anybody asks for them.

    ``on_ready`` is called, in any thread, whenever a copy has ended.
    """

    def __init__(
        self, limits: Limits, ahead: int, *, most_bytes: int = MOST_BYTES, on_ready: Callable[[], None] = lambda: None
    ) -> None:
        self._waiting: deque[MediaItem] = deque()
        self._limits, self._ahead, self._most_bytes = limits, ahead, most_bytes
        self._on_ready = on_ready
        self._slots: deque[_Slot] = deque()
        self._held: dict[str, tuple[int, Path]] = {}
        """By item: bytes and place of its copy, from the beginning of copying until ``release``."""
        self._pool: ThreadPoolExecutor | None = None
        self._scratch: Scratch | None = None
        self._numbers = count()
        self._closing = False

    def __len__(self) -> int:
        """Items that nobody has taken yet."""
        return len(self._waiting) + len(self._slots)

    def add(self, items: Iterable[MediaItem]) -> None:
        """More items, behind those that are left."""
        self._waiting.extend(items)

    def take(self) -> Ready | None:
        """The first item that is ready; None where none is yet."""
        self._fill()
        for number, slot in enumerate(self._slots):
            if slot.ready:
                del self._slots[number]
                self._fill()
                return slot.copying.result() if slot.copying is not None else Ready(slot.item, slot.item.path)
        return None

    def path_of(self, item: MediaItem) -> str:
        """Where an item that was taken, and not released, lies on this machine."""
        return str(self._held[item.id][1]) if item.id in self._held else item.path

    def release(self, item: MediaItem) -> None:
        """Remove the copy of an item that is done with."""
        _, path = self._held.pop(item.id, (0, None))
        if path is not None:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop copying, and remove what was copied."""
        self._closing = True
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self._scratch is not None:
            self._scratch.close()

    def _fill(self) -> None:
        while self._waiting and (not self._slots or self._slots[-1].copying is not None):
            item = self._waiting[0]
            if not is_url(item.path):
                self._slots.append(_Slot(item, None))
            elif len(self._slots) >= self._ahead or not self._fits(item):
                return
            else:
                self._slots.append(_Slot(item, self._start(item)))
            self._waiting.popleft()

    def _fits(self, item: MediaItem) -> bool:
        if not self._held:
            return True
        held = sum(num_bytes for num_bytes, _ in self._held.values())
        return held + item.size_bytes <= self._most_bytes and item.size_bytes + SPARE_BYTES <= self._free()

    def _free(self) -> int:
        """Bytes of the disk that no copy under way will take."""
        if self._scratch is None:
            return self._most_bytes + SPARE_BYTES
        missing = 0
        for num_bytes, path in self._held.values():
            with suppress(OSError):
                num_bytes -= path.stat().st_size
            missing += max(0, num_bytes)
        return shutil.disk_usage(self._scratch.path).free - missing

    def _start(self, item: MediaItem) -> Future[Ready]:
        self._scratch = self._scratch or Scratch()
        self._pool = self._pool or ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="tokcli-fetch")
        # The name tells nothing: what a server calls an object may be no name for a file.
        path = self._scratch.path / f"{next(self._numbers)}"
        free = self._free()
        self._held[item.id] = (item.size_bytes, path)
        copying = self._pool.submit(self._copy, item, path, free)
        copying.add_done_callback(lambda _: self._on_ready())
        return copying

    def _copy(self, item: MediaItem, path: Path, free: int) -> Ready:
        copy = Fetch(item.path, path, item.size_bytes, lambda: self._closing)
        try:
            self._limits.check_bytes(item.size_bytes)
            if item.size_bytes + SPARE_BYTES > free:
                raise OSError(
                    errno.ENOSPC,
                    f"a copy takes {item.size_bytes:,} bytes, {path.parent} has {max(0, free):,} to spare; "
                    "name a larger disk in TMPDIR",
                )
            copy.run()
        except (OSError, TokcliError) as error:
            return Ready(item, "", max(1, copy.tries), _failure(item, error))
        return Ready(item, str(path), copy.tries)


def _failure(item: MediaItem, error: Exception) -> Failed:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    if isinstance(error, FileNotFoundError):
        reason = f"gone; it was there when it was listed ({reason})"
    elif isinstance(error, PermissionError):
        reason = f"the server refuses it ({reason})"
    return Failed("fetch", type(error).__name__, f"{item.path}: {reason}")
