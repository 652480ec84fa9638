"""Which frames a video gives: arithmetic on presentation times, before and without decoding."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tokcli.errors import MediaError, UsageError
from tokcli.media.limits import Limits

Ticks = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sampling:
    """How many frames to take, and when.

    ``fps``: one frame at every k/fps seconds from the first frame, the one on display then; a frame that stays on
    display over several ticks is taken for each of them. ``num_frames`` (in place of ``fps``): that many, at the
    centres of as many equal parts of the duration. Both None: every frame of the source once. ``max_frames`` lowers
    the rate evenly where there would be more.
    """

    fps: float | None = 1.0
    num_frames: int | None = None
    max_frames: int | None = None

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise UsageError(f"--fps must be above 0 and at most 1000, got {self.fps:g}")
        for name in ("num_frames", "max_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} must be at least 1, got {value}")


@dataclass(frozen=True)
class Timeline:
    """Presentation times of a source's frames."""

    times: Ticks
    """int64 (F,), strictly increasing, in units of ``unit`` seconds."""
    end: int
    """When the last frame leaves the display; greater than ``times[-1]``."""
    unit: Fraction
    """Seconds of one unit."""

    @property
    def duration_seconds(self) -> float:
        return float((self.end - int(self.times[0])) * self.unit)

    @property
    def fps(self) -> float:
        """Frames per second on average."""
        return len(self.times) / self.duration_seconds

    def seconds(self, time: int) -> float:
        """Seconds from the first frame to ``time``."""
        return float((time - int(self.times[0])) * self.unit)

    def index(self, time: int) -> int:
        """Number of the frame that is on display at ``time``; 0 before the first."""
        return max(int(np.searchsorted(self.times, time, side="right")) - 1, 0)


@dataclass(frozen=True)
class Plan:
    """The moments at which a frame is taken."""

    ticks: Ticks
    """int64 (T,), not decreasing, in the timeline's units and zero: the frame taken has the last time <= tick."""
    frames: Ticks
    """int64 (T,): number of the frame that the timeline has on display at each tick."""
    sample_fps: float
    every: bool = False
    """Each source frame once: one that is lost leaves a gap, and its predecessor is not taken again for it."""


def timeline(times: Ticks, last_duration: int | None, unit: Fraction) -> Timeline:
    """The timeline of frames whose times (int64, any order, repeats allowed) are known.

    The last frame's duration is the one given, else the median gap, else 1/25 s.
    """
    unique = np.unique(times)
    if last_duration is None or last_duration <= 0:
        gaps = np.diff(unique)
        last_duration = int(np.median(gaps)) if len(gaps) else 0
    length = max(last_duration, 1) if last_duration else max(round(Fraction(1, 25) / unit), 1)
    return Timeline(times=unique, end=int(unique[-1]) + length, unit=unit)


def plan(line: Timeline, sampling: Sampling, limits: Limits) -> Plan:
    """The ticks of ``sampling`` on ``line``: at least one, and exact (rational arithmetic, no rounding of k/fps).

    Raises:
        MediaError: more ticks than the limit of frames.
    """
    first = int(line.times[0])
    length = line.end - first
    count, per_second = _count(line, length, sampling)
    limit = sampling.max_frames
    if limit is not None and count > limit:
        count, even = limit, True
    else:
        even = False
    if count > limits.max_frames:
        raise MediaError(f"{count:,} frames would be taken, over the limit of {limits.max_frames:,}; give --max-frames")
    if sampling.num_frames is not None:
        ticks = [first + (2 * k + 1) * length // (2 * count) for k in range(count)]
    elif even:
        ticks = [first + k * length // count for k in range(count)]
    elif per_second is None:
        ticks = line.times.tolist()
    else:
        step = 1 / (per_second * line.unit)
        ticks = [first + k * step.numerator // step.denominator for k in range(count)]
    exact_rate = per_second is not None and not even
    rate = float(per_second) if exact_rate and per_second is not None else count / float(length * line.unit)
    array = np.array(ticks, dtype=np.int64)
    frames = np.maximum(np.searchsorted(line.times, array, side="right") - 1, 0).astype(np.int64)
    every = sampling.num_frames is None and sampling.fps is None and not even
    return Plan(ticks=array, frames=frames, sample_fps=rate, every=every)


def _count(line: Timeline, length: int, sampling: Sampling) -> tuple[int, Fraction | None]:
    """(number of ticks, ticks per second or None where they do not follow a rate)."""
    if sampling.num_frames is not None:
        return sampling.num_frames, None
    if sampling.fps is None:
        return len(line.times), None
    per_second = Fraction(sampling.fps).limit_denominator(1_000_000)
    spans = length * line.unit * per_second
    return max(-(-spans.numerator // spans.denominator), 1), per_second
