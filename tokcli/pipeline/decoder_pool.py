"""The decoder processes of a run: started at once, fed, watched, and killed when they hang or grow.

A crash, a hang or a leak in native decoding costs one item. Time counts against an item only while its decoder could
work: not while it waits for the encoder to free a slot.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import wait
from types import TracebackType
from typing import Self

from tokcli.errors import UsageError
from tokcli.pipeline.decoder import Decoder, Event, Supervision
from tokcli.pipeline.messages import DecodeSettings

# Memory can be taken at a gigabyte a second, and the loop that polls may be busy: a thread looks at it.
LOOK_SECONDS = 0.1


class DecoderPool:
    """A fixed number of decoder processes, that start at once and wait to be configured. A context manager.

    ``alone``: they are all that this process will start, for a file or two.
    """

    def __init__(self, workers: int, supervision: Supervision, *, alone: bool = False) -> None:
        """Raises ``UsageError`` on systems without process groups and signals."""
        if sys.platform == "win32":
            raise UsageError("files are decoded in processes that need Linux or macOS; on Windows run tokcli in WSL")
        self.decoders = [Decoder(supervision, alone=alone) for _ in range(workers)]
        self._woken, self._wakes = socket.socketpair()
        self._woken.setblocking(False)
        self._wakes.setblocking(False)
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="tokcli-watcher", daemon=True)
        self._watcher.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def configure(self, settings: DecodeSettings) -> None:
        """Must be called before the first task; again only while no decoder has one."""
        for decoder in self.decoders:
            decoder.configure(settings)

    def idle(self) -> list[Decoder]:
        return [decoder for decoder in self.decoders if decoder.idle]

    def poll(self, timeout: float) -> Iterator[Event]:
        """All that has come, waiting at most ``timeout`` seconds for something; deaths and deadlines are ``Failed``."""
        wait([self._woken, *(decoder.connection for decoder in self.decoders)], timeout)
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        for decoder in self.decoders:
            yield from decoder.receive()
            if (failed := decoder.overdue()) is not None:
                yield from decoder.failed(failed)

    def wake(self) -> None:
        """End the ``poll`` that waits, or the next one; for any thread that has something ready for its caller."""
        with contextlib.suppress(OSError):  # full: it wakes all the same; closed: nobody waits any more
            self._wakes.send(b"\0")

    def _watch(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            for decoder in self.decoders:
                decoder.look()

    def close(self) -> None:
        self._closing.set()
        self._watcher.join()
        for decoder in self.decoders:
            decoder.kill()
        self._woken.close()
        self._wakes.close()
