"""Videos through a backend that hands out frames by number, held to the packet times that PyAV reads.

Index, plan, limits and orientation are those of the PyAV path, so every backend delivers the same frames of a file or
says that it cannot. Frames are asked for in order of presentation.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

import av
import numpy as np

from tokcli.errors import MediaError
from tokcli.media.heartbeat import beat
from tokcli.media.limits import Limits
from tokcli.media.orientation import Orientation, Pixels
from tokcli.media.pyav_convert import Converter
from tokcli.media.reader import DecodeReport, FrameSize, MediaReader
from tokcli.media.sampling import Sampling
from tokcli.media.stacking import stack
from tokcli.media.video_pyav import Parts, open_pyav
from tokcli.types import Frames, MediaInfo

Result = TypeVar("Result")

TOLERANCE_SECONDS = 0.002
"""Backends round times to milliseconds or to floats."""


class Backend(ABC):
    """What a library must offer."""

    name: str
    version: str

    @abstractmethod
    def open(self, path: str) -> None:
        """Open the best video stream; may raise whatever the library raises."""

    @abstractmethod
    def count(self) -> int:
        """How many frames the library sees."""

    @abstractmethod
    def frame(self, number: int) -> tuple[Pixels, float]:
        """(uint8 (H, W, 3) RGB, rotated upright; seconds since frame 0); numbers always increase."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""


def open_indexed(
    make: Callable[[], Backend], path: str, sampling: Sampling, limits: Limits, frame_size: FrameSize | None
) -> MediaReader:
    """``open_media`` for such a backend.

    Raises:
        MediaError: the backend cannot open the file, or sees other frames in it than its packets announce.
    """
    backend = make()
    with open_pyav(path, sampling, limits, None) as probe:
        parts = probe.parts()
    reader = IndexedReader(backend, parts, probe.info, probe.report, frame_size)
    try:
        _call(backend, "open the file", lambda: backend.open(path))
        _check(backend, parts)
    except BaseException:
        reader.close()
        raise
    return reader


class IndexedReader(MediaReader):
    """One video, read by frame numbers."""

    def __init__(
        self,
        backend: Backend,
        parts: Parts,
        info: MediaInfo,
        report: DecodeReport,
        frame_size: FrameSize | None,
    ) -> None:
        self._backend, self._line, self._plan = backend, parts.line, parts.sampled
        self.report = DecodeReport(warnings=report.warnings, absent_share=report.absent_share)
        self.info = replace(info, decoder=f"{backend.name} {backend.version}")
        self._size = frame_size(self.info) if frame_size else (info.height, info.width)

    def _chunks(self, max_frames: int) -> Iterator[Frames]:
        converter = Converter(Orientation(), self._size)

        def write(number: int, out: Pixels) -> None:
            beat()
            pixels, seconds = _call(self._backend, f"decode frame {number}", lambda: self._backend.frame(number))
            if abs(seconds - self._line.seconds(int(self._line.times[number]))) > TOLERANCE_SECONDS:
                raise MediaError(f"{self._backend.name} gave the frame of another time; use --decoder pyav")
            if pixels.shape != (self.info.height, self.info.width, 3):
                raise MediaError(
                    f"{self._backend.name} gave a frame of {pixels.shape[1]}x{pixels.shape[0]} where "
                    f"{self.info.width}x{self.info.height} was due; use --decoder pyav"
                )
            converter.write(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"), out)

        # Whatever is damaged is refused: what comes out is good.
        self.report.decoded_frames = self.info.num_frames
        numbers, repeats = np.unique(self._plan.frames, return_counts=True)
        times = self._line.times[numbers]
        frames = (
            (number, self._line.seconds(time), number, count)
            for number, time, count in zip(numbers.tolist(), times.tolist(), repeats.tolist())
        )
        yield from stack(frames, write, self._size, min(max_frames, self.info.num_frames))

    def close(self) -> None:
        self._backend.close()


def _check(backend: Backend, parts: Parts) -> None:
    """Refuse what the backend would get wrong without a word."""
    line, orientation = parts.line, parts.orientation
    if parts.transparent:
        raise MediaError(f"is transparent in places, which {backend.name} ignores; use --decoder pyav")
    mirrored = (orientation.flip_x + orientation.flip_y + orientation.transpose) % 2 == 1
    if mirrored:
        raise MediaError(f"is to be shown mirrored, which {backend.name} does not do; use --decoder pyav")
    count = _call(backend, "count the frames", backend.count)
    if count != len(line.times):
        raise MediaError(
            f"{backend.name} sees {count} frames where the packets announce {len(line.times)}; use --decoder pyav"
        )


def _call(backend: Backend, what: str, action: Callable[[], Result]) -> Result:
    try:
        return action()
    except Exception as error:  # these libraries raise their own classes, RuntimeError, IndexError and more
        first = (str(error) or type(error).__name__).strip().splitlines()[0]
        first = re.sub(r"\[[\d:]+\] |/\S+\.(cc|cpp|h):\d+[:,] ", "", first)  # clock and source lines
        raise MediaError(f"{backend.name} cannot {what}: {first}; use --decoder pyav") from None
