"""Videos through decord, if it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np

from tokcli.errors import MediaError, UsageError
from tokcli.media.limits import Limits
from tokcli.media.orientation import Pixels
from tokcli.media.reader import FrameSize, MediaReader
from tokcli.media.sampling import Sampling
from tokcli.media.video_indexed import Backend, open_indexed


def open_decord(path: str, sampling: Sampling, limits: Limits, frame_size: FrameSize | None) -> MediaReader:
    """``open_media`` with decord.

    Raises:
        UsageError: decord is not installed.
        MediaError: it cannot read the file, or would give other frames than asked for.
    """
    return open_indexed(_Decord, path, sampling, limits, frame_size)


class _Decord(Backend):
    """Reads straight on: decord's seeking gives wrong frames in some containers, its batches can hang."""

    name = "decord"

    def __init__(self) -> None:
        try:
            import decord
        except ImportError:
            raise UsageError('decord is not installed; `pip install "tokcli[decord]"`, or --decoder pyav') from None
        decord.logging.set_level(decord.logging.QUIET)
        self._decord = decord
        self._next = 0
        self._reader: Any = None
        self.version = str(decord.__version__)

    def open(self, path: str) -> None:
        # By default damaged frames are replaced by the last good one without a word; here one is an error.
        self._reader = self._decord.VideoReader(path, num_threads=1, fault_tol=1e-9)

    def count(self) -> int:
        count = len(self._reader)
        starts = self._reader.get_frame_timestamp(range(count))[:, 0]
        self._seconds = starts - starts[:1]
        return count

    def frame(self, number: int) -> tuple[Pixels, float]:
        if number > self._next:
            self._reader.skip_frames(number - self._next)
        self._next = number + 1
        pixels: Pixels = self._reader.next().asnumpy()
        if pixels.dtype != np.uint8:
            raise MediaError(f"decord gave {pixels.dtype} pixels")
        return pixels, float(self._seconds[number])

    def close(self) -> None:
        self._reader = None
