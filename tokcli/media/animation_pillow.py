"""Animated WebP, PNG and AVIF as video, through Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import PIL
from PIL import Image

from tokcli.errors import MediaError
from tokcli.media.heartbeat import beat
from tokcli.media.limits import Limits
from tokcli.media.orientation import Pixels
from tokcli.media.pillow_rgb import to_rgb
from tokcli.media.reader import DecodeReport, FrameSize, MediaReader
from tokcli.media.sampling import Sampling, plan, timeline
from tokcli.media.stacking import stack
from tokcli.types import Frames, MediaInfo

_MICRO = Fraction(1, 1_000_000)
_SHORTEST = 10_000
_DEFAULT = 100_000
"""Microseconds; frames of 10 ms or less are shown for 100 ms, as browsers and FFmpeg do."""


class AnimationReader(MediaReader):
    """One animation. Durations are known only by going through all frames, so opening decodes it once."""

    def __init__(
        self, image: Any, sampling: Sampling, limits: Limits, frame_size: FrameSize | None, report: DecodeReport
    ) -> None:
        self.report = report
        self._image = image
        self._skip = int(bool(image.info.get("default_image")))  # an APNG's still for viewers without animation
        starts, end = self._walk(limits)
        self._line = timeline(np.array(starts, np.int64), end - starts[-1], _MICRO)
        self._plan = plan(self._line, sampling, limits)
        self.info = MediaInfo(
            kind="video",
            width=image.width,
            height=image.height,
            num_frames=len(self._plan.ticks),
            sample_fps=self._plan.sample_fps,
            duration_seconds=self._line.duration_seconds,
            source_fps=self._line.fps,
            codec=image.format.lower(),
            decoder=f"pillow {PIL.__version__}",
        )
        self._size = frame_size(self.info) if frame_size else (image.height, image.width)

    def _chunks(self, max_frames: int) -> Iterator[Frames]:
        yield from stack(self._taken(), self._write, self._size, min(max_frames, self.info.num_frames))

    def close(self) -> None:
        self._image.close()

    def _walk(self, limits: Limits) -> tuple[list[int], int]:
        """Start of every frame and the end of the last, in microseconds."""
        starts: list[int] = []
        time = 0
        for number in range(self._skip, self._image.n_frames):
            try:
                self._image.seek(number)
                self._image.load()
                beat()
            except Exception as error:  # Pillow's plugins raise whatever the damage leads to
                self.report.bad_packets += 1
                self.report.note(error)
                self.report.warn(f"the animation ends early, after {len(starts)} frames")
                self.report.absent_share = 1 - len(starts) / (self._image.n_frames - self._skip)
                break
            starts.append(time)
            duration = round(float(self._image.info.get("duration") or 0) * 1000)
            time += duration if duration > _SHORTEST else _DEFAULT
            limits.check_frames(len(starts))
            limits.check_seconds(time / 1e6)
        if not starts:
            raise MediaError(f"no frame could be decoded: {self.report.log_tail[-1]}")
        return starts, time

    def _taken(self) -> Iterator[tuple[int, float, int, int]]:
        numbers, repeats = np.unique(self._plan.frames, return_counts=True)
        for number, count in zip(numbers.tolist(), repeats.tolist()):
            self.report.decoded_frames += count
            yield number, self._line.seconds(int(self._line.times[number])), number, count

    def _write(self, number: int, out: Pixels) -> None:
        beat()
        self._image.seek(number + self._skip)
        image = to_rgb(self._image)
        height, width = out.shape[:2]
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        out[:] = np.asarray(image)
