"""The supervisor of the decoder processes: starts them, feeds them, and kills those that hang.

A crash, a hang or a leak in native decoding costs one item. Time counts against an item only while its decoder could
work: not while it waits for the encoder to free a buffer.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import psutil

from tokcli.errors import TokcliError
from tokcli.pipeline.decoder_process import decoder_main
from tokcli.pipeline.messages import Chunk, DecodeSettings, Failed, Finished, Message, Opened, Ready, Task
from tokcli.types import MediaItem

BUFFERS = 3
BUFFER_BYTES = 8 << 20
# A decoder that grew beyond this is replaced between items: native leaks are not ours to mend.
RECYCLE_BYTES = 2 << 30
RECYCLE_ITEMS = 2000
START_SECONDS = 120.0


@dataclass(frozen=True)
class Event:
    """A message, with the item that it is about."""

    item: MediaItem
    attempt: int
    message: Message
    pixels: npt.NDArray[np.uint8] | None
    """Frames of a ``Chunk``, uint8 (n, h, w, 3) in shared memory, until ``release`` is called."""
    release: Callable[[], None]


class Decoder:
    """One decoder process and the item that it works on."""

    def __init__(self, timeout: float) -> None:
        self.settings: DecodeSettings | None = None
        self.timeout = timeout
        self.item: MediaItem | None = None
        self.attempt = 0
        self.failed_starts = 0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        # Arena files are unlinked as soon as they are mapped: SIGKILL leaves nothing in shared memory.
        self.buffers: list[Any] = [context.RawArray(ctypes.c_uint8, BUFFER_BYTES) for _ in range(BUFFERS)]
        self.connection, remote = context.Pipe()
        self.process = context.Process(
            target=decoder_main, args=(remote, self.buffers), daemon=True, name="tokcli-decoder"
        )
        self.process.start()
        remote.close()
        self.ready = False
        self.items_done = 0
        self.lent = 0
        self.worked, self.budget, self.since = 0.0, START_SECONDS, time.monotonic()
        if self.settings is not None:
            self._send(self.settings)

    def _send(self, message: DecodeSettings | Task | int) -> None:
        with contextlib.suppress(OSError):  # it died: the next poll tells
            self.connection.send(message)

    def configure(self, settings: DecodeSettings) -> None:
        """Say how to decode; also to every process that replaces this one."""
        self.settings = settings
        self._send(settings)

    @property
    def idle(self) -> bool:
        return self.ready and self.item is None

    @property
    def working(self) -> bool:
        """False while it waits for a task or for a free buffer."""
        return not self.ready or (self.item is not None and self.lent < BUFFERS)

    def assign(self, item: MediaItem, attempt: int) -> None:
        if self.items_done >= RECYCLE_ITEMS or (self.items_done and self._resident_bytes() > RECYCLE_BYTES):
            self.replace()
        self.item, self.attempt = item, attempt
        self.worked, self.budget, self.since = 0.0, self.timeout, time.monotonic()
        if not self.ready:
            self.budget += START_SECONDS
        self._send(Task(item.path))

    def _resident_bytes(self) -> int:
        try:
            return int(psutil.Process(self.process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def receive(self) -> Iterator[Event]:
        """What has come, oldest first; a death comes as ``Failed``.

        Raises ``TokcliError`` if the process never manages to start.
        """
        while _has_message(self.connection):
            try:
                message = self.connection.recv()
            except (EOFError, OSError):
                yield from self._died()
                return
            event = self._noted(message)
            if event is not None:
                yield event

    def _noted(self, message: Message) -> Event | None:
        """Keep account of a message, and pair it with the item that it is about."""
        self._tick()
        item, attempt, pixels = self.item, self.attempt, None
        if isinstance(message, Ready):
            self.ready, self.failed_starts = True, 0
        elif isinstance(message, Opened):
            # A second of work for every second of a megapixel: several times what the slowest codec needs.
            megapixels = message.info.width * message.info.height / 1e6
            self.budget += message.info.duration_seconds * max(1.0, megapixels)
        elif isinstance(message, Chunk):
            self.lent += 1
            pixels = self._pixels(message)
        elif isinstance(message, (Finished, Failed)):
            self.items_done += 1
            self.item = None
        return (
            None
            if item is None
            else Event(item, attempt, message, pixels, partial(self._release, message, self.process))
        )

    def _tick(self) -> None:
        now = time.monotonic()
        if self.working:
            self.worked += now - self.since
        self.since = now

    def overdue(self) -> bool:
        self._tick()
        return (self.item is not None or not self.ready) and self.worked > self.budget

    def failed(self, failed: Failed) -> Iterator[Event]:
        """Replace the process; its item, if it had one, ends with ``failed``."""
        item, attempt = self.item, self.attempt
        self.item = None
        self.replace()
        if item is not None:
            yield Event(item, attempt, failed, None, lambda: None)

    def _died(self) -> Iterator[Event]:
        self.process.join(5)
        code = self.process.exitcode
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        if not self.ready:
            self.failed_starts += 1
            if self.failed_starts >= 3:
                raise TokcliError(f"decoder processes die at start ({how}); run `tokcli doctor`")
        yield from self.failed(Failed("decode", "DecoderCrash", f"the decoder process died ({how})", retry=True))

    def _pixels(self, chunk: Chunk) -> npt.NDArray[np.uint8]:
        """uint8 (n, h, w, 3), a view of shared memory: it stays readable after the process is gone."""
        flat = np.frombuffer(chunk.inline or self.buffers[chunk.buffer], dtype=np.uint8)
        return flat[: int(np.prod(chunk.shape))].reshape(chunk.shape)

    def _release(self, message: Message, process: SpawnProcess) -> None:
        if isinstance(message, Chunk) and process is self.process:
            self._tick()
            self.lent -= 1
            self._send(message.buffer)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def replace(self) -> None:
        self.kill()
        self._start()


class DecoderPool:
    """A fixed number of decoder processes, that start at once and wait to be configured. A context manager."""

    def __init__(self, workers: int, timeout: float) -> None:
        self.decoders = [Decoder(timeout) for _ in range(workers)]

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
        wait([decoder.connection for decoder in self.decoders], timeout)
        for decoder in self.decoders:
            yield from decoder.receive()
            if decoder.overdue():
                message = f"no end after {decoder.worked:.0f} s of work; see --timeout"
                yield from decoder.failed(Failed("decode", "Timeout", message))

    def close(self) -> None:
        for decoder in self.decoders:
            decoder.kill()


def _has_message(connection: Connection) -> bool:
    try:
        return connection.poll(0)
    except OSError:
        return False
