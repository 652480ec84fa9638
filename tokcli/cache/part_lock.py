"""The lock of one part's writer.

Parts share ``.lock``, which a writer of the whole cache holds alone, and each holds a file of its own. Who starts and
who ends passes a gate one by one. So of several that end at once the last one knows that it is the last, and whoever
starts finds the cache as it was before that one looked, or after it.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from tokcli.cache.faults import fault_point
from tokcli.cache.flock import LockFile
from tokcli.cache.layout import LOCK
from tokcli.cache.lock import CacheLockedError, holder, own_name, writing_parts
from tokcli.cache.part import Part

GATE = f"{LOCK}-gate"
GATE_SECONDS = 3600.0
"""How long to wait for others that start or end: the last one reads the ids of the whole cache there."""
_POLL_SECONDS = 0.02
_LOOKS = 10
"""A writer of the whole cache that is refused looks at the locks of parts, for a moment."""


class PartLock:
    """Held by the writer of a part. It is taken in the gate, which stays closed to others until ``opened``.

    Raises ``CacheLockedError`` at once where somebody writes the whole cache, this part, or a part of another number of
    parts.
    """

    def __init__(self, cache: Path, part: Part) -> None:
        self._cache, self._part = cache, part
        self._gate = LockFile(cache / GATE)
        self._whole = LockFile(cache / LOCK)
        self._own = LockFile(cache / part.lock_name)
        self.is_locked = True
        try:
            self._pass_gate()
            self._take()
        except BaseException:
            self.release()
            raise

    def opened(self) -> None:
        """Let the next one in: what only one may do at a time is done."""
        self._gate.unlock()

    def leave(self) -> bool:
        """Stop writing. True for the last one: it holds the whole cache now, until ``release``."""
        self._pass_gate()
        fault_point("part.before_last_look")
        self._whole.unlock()
        if self._whole.take():
            with contextlib.suppress(OSError):
                self._whole.note(own_name())
            return True
        self.release()
        return False

    def release(self) -> None:
        """Give all back. Safe to call again."""
        self.is_locked = False
        for file in (self._own, self._whole, self._gate):
            file.close()

    def _pass_gate(self) -> None:
        deadline = time.monotonic() + GATE_SECONDS
        while not self._gate.take():
            if time.monotonic() > deadline:
                raise CacheLockedError(
                    f"{self._cache} has been kept for {GATE_SECONDS:.0f} s by another part that starts or ends "
                    f"({holder(self._gate.path)}); look what holds that one up, then run the same command again"
                )
            time.sleep(_POLL_SECONDS)
        with contextlib.suppress(OSError):
            self._gate.note(own_name())

    def _take(self) -> None:
        cache, part = self._cache, self._part
        if not self._whole.take(shared=True):
            raise CacheLockedError(
                f"{cache} is being written by {holder(self._whole.path)}; wait for it, stop it, or choose another "
                "output folder"
            )
        for other in writing_parts(cache, but=part.count):
            raise CacheLockedError(
                f"{cache} is being written in {other.count} parts (part {other}, "
                f"{holder(cache / other.lock_name)}), so part {part} has to wait until they are done; "
                f"or take --shard i/{other.count}"
            )
        for _ in range(_LOOKS):
            if self._own.take():
                break
            time.sleep(_POLL_SECONDS)
        else:
            raise CacheLockedError(
                f"part {part} of {cache} is being written by {holder(self._own.path)}; wait for it, or stop it"
            )
        with contextlib.suppress(OSError):
            self._own.note(own_name())
