"""Videos through torchcodec, if it is installed."""

from __future__ import annotations

from typing import Any

from tokcli.errors import UsageError
from tokcli.media.limits import Limits
from tokcli.media.orientation import Pixels
from tokcli.media.reader import FrameSize, MediaReader
from tokcli.media.sampling import Sampling
from tokcli.media.video_indexed import Backend, open_indexed


def open_torchcodec(path: str, sampling: Sampling, limits: Limits, frame_size: FrameSize | None) -> MediaReader:
    """``open_media`` with torchcodec.

    Raises:
        UsageError: torchcodec is not installed, or does not fit the installed torch or FFmpeg.
        MediaError: it cannot read the file, or would give other frames than asked for.
    """
    return open_indexed(_Torchcodec, path, sampling, limits, frame_size)


class _Torchcodec(Backend):
    """Exact seeking; the approximate mode gives wrong frames at variable frame rates."""

    name = "torchcodec"

    def __init__(self) -> None:
        try:
            import torchcodec
            from torchcodec.decoders import VideoDecoder
        except (ImportError, RuntimeError, OSError) as error:
            reason = "is not installed" if isinstance(error, ImportError) else "does not load beside this torch"
            raise UsageError(
                f'torchcodec {reason}; `pip install "tokcli[torchcodec]"` with FFmpeg libraries, or --decoder pyav'
            ) from None
        self._open: Any = VideoDecoder
        self._decoder: Any = None
        self._start = 0.0
        self.version = str(torchcodec.__version__)

    def open(self, path: str) -> None:
        self._decoder = self._open(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")

    def count(self) -> int:
        self._start = float(self._decoder.metadata.begin_stream_seconds_from_content)
        return len(self._decoder)

    def frame(self, number: int) -> tuple[Pixels, float]:
        frame = self._decoder.get_frame_at(number)
        return frame.data.numpy(), float(frame.pts_seconds) - self._start

    def close(self) -> None:
        self._decoder = None
