"""Decoded PyAV frames to upright RGB, in one pass of swscale."""

from __future__ import annotations

from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from tokcli.errors import MediaError
from tokcli.media.alpha import composite
from tokcli.media.orientation import Orientation, Pixels

_SCALING: dict[str, Any] = {"interpolation": Interpolation.BICUBIC, "threads": 1}


class Converter:
    """Converts frames of one file; the scaler's tables are made once and shared by all frames.

    Pixels are taken as stored: a sample aspect ratio other than 1 is not applied, as with decord, torchcodec and
    ffmpeg's raw output, which is what models were trained on.

    Args:
        orientation: how the stored picture is to be laid.
        size: (height, width) upright; frames of any other size are scaled to it (bicubic).
    """

    def __init__(self, orientation: Orientation, size: tuple[int, int]) -> None:
        self._orientation = orientation
        self._height, self._width = orientation.size(*size)
        self._scaler = VideoReformatter()

    def write(self, frame: Any, out: Pixels) -> None:
        """Fill ``out`` uint8 (height, width, 3) with the frame.

        Raises:
            MediaError: the frame's format cannot be converted.
        """
        try:
            if has_alpha(frame):
                frame = self._flatten(frame)
            rgb = self._scaler.reformat(frame, width=self._width, height=self._height, format="rgb24", **_SCALING)
        except (av.error.FFmpegError, ValueError) as error:
            raise MediaError(f"a frame of format {frame.format.name} cannot be converted to RGB: {error}") from None
        out[:] = self._orientation.apply(_rows(rgb, 3))

    @staticmethod
    def _flatten(frame: Any) -> Any:
        """The frame over the background, before any scaling: colours under transparent pixels are arbitrary."""
        rgba = _rows(frame.reformat(format="rgba", **_SCALING), 4)
        if rgba[..., 3].min() == 255:
            return frame
        return av.VideoFrame.from_ndarray(composite(rgba), format="rgb24")


def has_alpha(frame: Any) -> bool:
    """Whether the frame's pixels have transparency."""
    return any(component.is_alpha for component in frame.format.components)


def _rows(frame: Any, channels: int) -> Pixels:
    """The frame's packed pixels (H, W, channels), without the padding at the ends of rows; a view."""
    plane = frame.planes[0]
    flat = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
    return flat[:, : frame.width * channels].reshape(frame.height, frame.width, channels)
