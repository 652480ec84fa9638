"""One decoder process, as its supervisor sees it: what it is given, what it says, and when it has to be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np
import numpy.typing as npt
import psutil

from tokcli.errors import TokcliError
from tokcli.media import STEPS
from tokcli.pipeline.decoder_process import decoder_main, work_seconds
from tokcli.pipeline.forking import start_process
from tokcli.pipeline.messages import (
    Chunk,
    DecodeSettings,
    Failed,
    Finished,
    Found,
    Message,
    Opened,
    Ready,
    Stage,
    Task,
)
from tokcli.pipeline.shared import SLOTS, DecoderLog, FrameMemory
from tokcli.types import MediaItem

# A decoder that grew beyond this is replaced between items: native leaks are not ours to mend.
RECYCLE_BYTES = 2 << 30
RECYCLE_ITEMS = 2000
START_SECONDS = 120.0
# The longest that a decoder is charged for between two looks: while the supervisor is busy, it may be waiting for it.
LONGEST_TICK_SECONDS = 1.0


@dataclass(frozen=True)
class Supervision:
    """What a decoder may take before it is killed."""

    timeout: float = 60.0
    """Seconds of work for a file, plus one for every second of every megapixel of its video."""
    heartbeat: float = 60.0
    """Seconds of work without a packet read, a frame decoded or a block hashed. The slowest single step is decoding a
    still of the largest allowed size: a PNG took 25 s where twelve processes wanted each core."""
    memory_bytes: int = 4 << 30
    """Resident memory while it has a file. A JPEG of 100 megapixels takes 1.4 GiB, a transparent PNG of the largest
    allowed size 2.8 GiB."""


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

    def __init__(self, supervision: Supervision, *, alone: bool = False) -> None:
        self.supervision = supervision
        self._alone = alone
        self.settings: DecodeSettings | None = None
        self.item: MediaItem | None = None
        self.attempt = 0
        self.failed_starts = 0
        self._copy: str | None = None
        self._start()

    def _start(self) -> None:
        self.memory, self.log = FrameMemory(), DecoderLog()
        self.connection, remote = Pipe()
        self.process = start_process(decoder_main, (remote, self.memory, self.log), alone=self._alone)
        remote.close()
        self.ready = False
        self.items_done = 0
        self.lent, self.most_lent = 0, SLOTS
        self.stage: Stage = "open"
        self.grown: tuple[BaseProcess, int] | None = None
        """A process that was killed for its memory, and the bytes that it took."""
        self._begin(START_SECONDS)
        if self.settings is not None:
            self._send(self.settings)

    def _begin(self, budget: float) -> None:
        self.worked, self.budget, self.since = 0.0, budget, time.monotonic()
        self.silent, self._beats = 0.0, 0

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
        """False while it waits for a task or for a free slot."""
        return not self.ready or (self.item is not None and self.lent < self.most_lent)

    def assign(self, item: MediaItem, attempt: int, probe: bool = False, path: str | None = None) -> None:
        """Give it a file, to decode it or only to find out all about it; ``path`` is its copy on this machine."""
        recycle = min(RECYCLE_BYTES, self.supervision.memory_bytes // 2)
        if self.items_done >= RECYCLE_ITEMS or (self.items_done and self.resident_bytes() > recycle):
            self.replace()
        self.item, self.attempt, self.stage, self.most_lent = item, attempt, "open", SLOTS
        self._begin(self.supervision.timeout + (0.0 if self.ready else START_SECONDS))
        self.log.clear()
        self._copy = path if path != item.path else None
        self._send(Task(path or item.path, probe))

    def resident_bytes(self) -> int:
        """Memory that it has now; 0 where it is gone."""
        try:
            return int(psutil.Process(self.process.pid).memory_info().rss)
        except psutil.Error:
            return 0

    def look(self) -> None:
        """Kill the process if it takes too much, and keep its log short. May be called from another thread."""
        process = self.process
        if self.item is not None and (resident := self.resident_bytes()) > self.supervision.memory_bytes:
            self.grown = (process, resident)
            _kill_group(process)
        self.log.trim()

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
        # The pipe stays open where something that it started has it too.
        if self.process.exitcode is not None:
            yield from self._died()

    def _noted(self, message: Message) -> Event | None:
        """Keep account of a message, and pair it with the item that it is about."""
        self._tick()
        item, attempt, pixels = self.item, self.attempt, None
        if isinstance(message, Ready):
            self.ready, self.failed_starts = True, 0
            self.silent = 0.0
        elif isinstance(message, Opened):
            self.budget += work_seconds(message.info.duration_seconds, message.info.width, message.info.height)
            self.stage, self.most_lent = "decode", message.most_lent
        elif isinstance(message, Found):
            self.budget += message.work_seconds
            if message.step == STEPS[-1]:
                self.item = None
        elif isinstance(message, Chunk):
            self.lent += 1
            pixels = self._pixels(message)
        elif isinstance(message, (Finished, Failed)):
            self.items_done += 1
            self.item = None
            if isinstance(message, Failed) or message.damaged:
                message = replace(message, log_tail=self.log.tail() or message.log_tail)
            if isinstance(message, Failed) and item is not None:
                message = message.naming(item.path, self._copy)
            elif isinstance(message, Finished) and item is not None and self._copy is not None:
                message = replace(message, source_modified_ns=item.modified_ns)  # the object's, not its copy's
        return (
            None
            if item is None
            else Event(item, attempt, message, pixels, partial(self._release, message, self.process))
        )

    def _tick(self) -> None:
        now = time.monotonic()
        passed = min(now - self.since, LONGEST_TICK_SECONDS) if self.working else 0.0
        self.since = now
        beats = int(self.memory.heartbeat[0])
        self.worked += passed
        self.silent = self.silent + passed if beats == self._beats and self.ready else 0.0
        self._beats = beats

    def overdue(self) -> Failed | None:
        """Why it must not go on with its file, if so."""
        self._tick()
        if self.item is None and self.ready:
            return None
        if self.worked > self.budget:
            message = f"no end after {self.worked:.0f} s of work; see --timeout"
        elif self.silent > self.supervision.heartbeat:
            message = f"nothing read or decoded in {self.silent:.0f} s of work; see --heartbeat"
        else:
            return None
        return Failed(self.stage, "Timeout", message, self._last_words())

    def _last_words(self) -> str:
        """The log, after the process was asked to print where it is."""
        before = self.log.num_bytes
        if self.ready:
            with contextlib.suppress(OSError, TypeError):
                os.kill(self.process.pid or 0, signal.SIGUSR1)
            until = time.monotonic() + 0.2
            while self.log.num_bytes == before and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(0.01)  # for the rest of it
        return self.log.tail()

    def failed(self, failed: Failed) -> Iterator[Event]:
        """Replace the process; its item, if it had one, ends with ``failed``."""
        item, attempt = self.item, self.attempt
        self.item = None
        self.replace()
        if item is not None:
            yield Event(item, attempt, failed.naming(item.path, self._copy), None, lambda: None)

    def _died(self) -> Iterator[Event]:
        self.process.join(5)
        code, log = self.process.exitcode, self.log.tail()
        if self.grown is not None and self.grown[0] is self.process:
            message = (
                f"decoding took {self.grown[1] / (1 << 30):.1f} GiB of memory, over the limit of "
                f"{self.supervision.memory_bytes / (1 << 30):.1f} GiB; raise it with --decoder-memory"
            )
            # What it had before this file may have been the leak of others.
            yield from self.failed(Failed(self.stage, "MemoryLimit", message, log, retry=self.items_done > 0))
            return
        how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        if not self.ready:
            self.failed_starts += 1
            if self.failed_starts >= 3:
                last = f": {log.splitlines()[-1]}" if log else ""
                raise TokcliError(f"decoder processes die at start ({how}{last}); run `tokcli doctor`")
        hint = "; perhaps by the system, for want of memory" if how == "SIGKILL" else ""
        message = f"the decoder process died ({how}{hint})"
        yield from self.failed(Failed(self.stage, "DecoderCrash", message, log, retry=True))

    def _pixels(self, chunk: Chunk) -> npt.NDArray[np.uint8]:
        """uint8 (n, h, w, 3), a view of shared memory: it stays readable after the process is gone."""
        flat = np.frombuffer(chunk.inline, dtype=np.uint8) if chunk.inline else self.memory.slots[chunk.slot]
        return flat[: int(np.prod(chunk.shape))].reshape(chunk.shape)

    def _release(self, message: Message, process: BaseProcess) -> None:
        if isinstance(message, Chunk) and process is self.process:
            self._tick()
            self.lent -= 1
            self._send(message.slot)

    def kill(self) -> None:
        _kill_group(self.process)
        self.process.join()
        self.connection.close()
        self.memory.close()
        self.log.close()

    def replace(self) -> None:
        self.kill()
        self._start()


def _kill_group(process: BaseProcess) -> None:
    """End a decoder and all that it started. The group is its own once it has begun to work."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.pid is not None:
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _has_message(connection: Connection) -> bool:
    try:
        return connection.poll(0)
    except OSError:
        return False
