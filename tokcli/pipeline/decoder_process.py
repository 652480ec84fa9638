"""The decoder process: decodes one file at a time, resizes, and hands frames over through shared memory.

It runs foreign native code on hostile input, so it owns nothing: the supervisor may kill it at any moment.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections import deque
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tokcli.errors import MediaError
from tokcli.media import DecodeReport, hash_file, open_media, probe
from tokcli.media.ffmpeg import print_messages
from tokcli.media.heartbeat import beat, beat_in
from tokcli.pipeline.messages import Chunk, DecodeSettings, Failed, Finished, Found, Opened, Ready, Stage, Task
from tokcli.pipeline.shared import SLOT_BYTES, SLOTS, DecoderLog, FrameMemory
from tokcli.types import Frames, MediaInfo

# Frames are resized a few at a time, so that full-size frames of a large video never pile up.
FRAMES_AT_ONCE = 4
BYTES_AT_ONCE = 128 << 20


def decoder_main(connection: Connection, memory: FrameMemory, log: DecoderLog) -> None:
    """Serve tasks until the supervisor says None or goes away."""
    os.setsid()  # a group of its own: whatever native code starts in it ends with it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _die_with_parent()
    _die_before_others()
    log.capture()
    print_messages()
    beat_in(memory.heartbeat)
    try:
        settings = connection.recv()
        # Loading what files need must not count against the first of them.
        import tokcli.media.image_pillow
        import tokcli.media.video_pyav  # noqa: F401

        if not settings.resize_in_decoder:
            import torch

            torch.set_num_threads(1)
        connection.send(Ready())
        _Worker(connection, memory, settings).serve()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _die_before_others() -> None:
    """Be the one that Linux ends when memory runs out, and leave no core dump: there may be thousands of bad files."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")


def _die_with_parent() -> None:
    """Ask Linux to kill this process when the supervisor dies, even from inside a native endless loop."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class _Worker:
    def __init__(self, connection: Connection, memory: FrameMemory, settings: DecodeSettings) -> None:
        self.connection = connection
        self.settings = settings
        self.slots = memory.slots
        # The last that came back is the first to be used: slots that are never needed are never written.
        self.free = deque(range(SLOTS))

    def serve(self) -> None:
        while True:
            message = self.connection.recv()
            if message is None:
                return
            if isinstance(message, int):
                self.free.append(message)
                continue
            if isinstance(message, DecodeSettings):
                self.settings = message
                continue
            self.stage: Stage = "open"
            self.report: DecodeReport | None = None
            try:
                (self._probe if message.probe else self._decode)(message)
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:
                log_tail = "\n".join(self.report.log_tail) if self.report else ""
                self.connection.send(Failed(self.stage, type(error).__name__, _reason(error), log_tail))

    def _probe(self, task: Task) -> None:
        settings = self.settings
        width = height = 0
        for step, facts in probe(task.path, settings.sampling, settings.limits, settings.decoder):
            width, height = facts.get("width", width), facts.get("height", height)
            seconds = facts["duration_seconds"] if step == "packets" else 0.0
            self.connection.send(Found(step, facts, work_seconds(seconds, width, height)))

    def _decode(self, task: Task) -> None:
        settings = self.settings
        before = os.stat(task.path)  # noqa: PTH116 - names that are not UTF-8 go through os
        frame_size = settings.frame_size if settings.resize_in_decoder else None
        with open_media(
            task.path,
            sampling=settings.sampling,
            limits=settings.limits,
            decoder=settings.decoder,
            frame_size=frame_size,
        ) as reader:
            size = settings.frame_size(reader.info)
            batch = _Batch(self, size)
            self.connection.send(Opened(reader.info, size, batch.most_lent))
            self.stage, self.report = "decode", reader.report
            delivered = 0
            for frames in reader.chunks(_frames_at_once(reader.info, frame_size is not None)):
                delivered += len(frames)
                batch.add(frames)
            batch.send()
        report = reader.report
        if not delivered:
            raise MediaError(f"{task.path}: no frame could be decoded")
        source_hash = hash_file(task.path)
        after = os.stat(task.path)  # noqa: PTH116
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise MediaError(f"{task.path}: the file changed while it was read; run again when it is complete")
        self.connection.send(
            Finished(
                source_hash=source_hash,
                source_bytes=after.st_size,
                source_modified_ns=after.st_mtime_ns,
                bad_packets=report.bad_packets,
                corrupt_frames=report.corrupt_frames,
                planned_frames=reader.planned_frames,
                decoded_frames=report.decoded_frames,
                doubtful_frames=report.doubtful_frames,
                warnings=tuple(report.warnings),
                log_tail="\n".join(report.log_tail),
            )
        )

    def free_slot(self, most_lent: int) -> int:
        """Wait until fewer than ``most_lent`` are away: this keeps a fast decoder from running ahead of the encoder."""
        while SLOTS - len(self.free) >= most_lent:
            self.free.append(self.connection.recv())
        return self.free.pop()


def work_seconds(seconds: float, width: int, height: int) -> float:
    """What a video may take: a second for every second of a megapixel, several times what the slowest codec needs."""
    return seconds * max(1.0, width * height / 1e6)


def _frames_at_once(info: MediaInfo, resized: bool) -> int:
    """How many frames to ask for, so that those of the largest video do not take gigabytes."""
    return FRAMES_AT_ONCE if resized else max(1, min(FRAMES_AT_ONCE, BYTES_AT_ONCE // (info.width * info.height * 3)))


class _Batch:
    """Collects resized frames in one slot and sends it when it is full."""

    def __init__(self, worker: _Worker, size: tuple[int, int]) -> None:
        self.worker, self.size = worker, size
        settings = worker.settings
        self.frame_bytes = size[0] * size[1] * 3
        step_bytes = self.frame_bytes * settings.frames_per_step
        room = SLOT_BYTES // step_bytes
        self.inline = room == 0
        # What is sent inline is held by the supervisor: as many bytes of it as the slots have.
        self.most_lent = max(2, min(SLOTS, SLOTS * SLOT_BYTES // step_bytes))
        self.capacity = settings.frames_per_step * max(1, min(room, settings.max_steps))
        self.slot: int | None = None
        self.parts: list[npt.NDArray[np.uint8]] = []
        self.times: list[float] = []
        self.indices: list[int] = []

    def add(self, frames: Frames) -> None:
        for start in range(len(frames)):
            if len(self.times) == self.capacity:
                self.send()
            self._place(self._resized(frames.pixels[start : start + 1]))
            beat()
            self.times.append(float(frames.times[start]))
            self.indices.append(int(frames.indices[start]))

    def _resized(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        if pixels.shape[1:3] == self.size:
            return pixels
        from tokcli.models.preprocess import resize_frames

        return resize_frames(pixels, self.size, self.worker.settings.resample)

    def _place(self, pixels: npt.NDArray[np.uint8]) -> None:
        if self.slot is None:
            self.slot = self.worker.free_slot(self.most_lent)
        if self.inline:
            self.parts.append(pixels)
            return
        offset = len(self.times) * self.frame_bytes
        self.worker.slots[self.slot][offset : offset + self.frame_bytes] = pixels.reshape(-1)

    def send(self) -> None:
        if self.slot is None:
            return
        height, width = self.size
        self.worker.connection.send(
            Chunk(
                slot=self.slot,
                shape=(len(self.times), height, width, 3),
                times=np.array(self.times, dtype=np.float64),
                indices=np.array(self.indices, dtype=np.int64),
                inline=b"".join(part.tobytes() for part in self.parts),
            )
        )
        self.slot, self.parts, self.times, self.indices = None, [], [], []


def _reason(error: Exception) -> str:
    """One line."""
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
