"""Writing videos and stills: what the synthetic clips and the tests are made with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokcli.errors import MediaError, UsageError

_BY_SUFFIX = {
    ".mp4": "h264",
    ".mov": "h264",
    ".mkv": "h264",
    ".ts": "h264",
    ".webm": "vp9",
    ".gif": "gif",
    ".avi": "mpeg4",
}
_ENCODERS = {"h264": "libx264", "hevc": "libx265", "vp8": "libvpx", "vp9": "libvpx-vp9", "av1": "libsvtav1"}
_PIXELS = {"gif": "rgb8", "mjpeg": "yuvj420p", "ffv1": "bgr0", "rawvideo": "bgr24"}
_LOSSY = {
    # With its lookahead, libx264 gives other bytes for the same frames from run to run.
    "libx264": {"crf": "18", "preset": "veryfast", "x264-params": "rc-lookahead=0"},
    "libvpx-vp9": {"crf": "24", "b": "0", "cpu-used": "8"},
}


def write_video(
    path: str | Path,
    frames: Iterable[npt.NDArray[np.uint8]],
    fps: float | Fraction,
    *,
    codec: str | None = None,
    pixel_format: str | None = None,
    options: Mapping[str, str] | None = None,
    times: Iterable[int] | None = None,
    container_options: Mapping[str, str] | None = None,
) -> int:
    """Encode RGB frames, and say how many there were.

    Args:
        path: the suffix names the container (.mp4 .mov .mkv .webm .ts .avi .gif and whatever else FFmpeg knows).
        frames: uint8 (H, W, 3), or (H, W, 4) with a pixel format that has alpha; all of one size.
        fps: frames per second.
        codec: "h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "gif" or an FFmpeg encoder; by suffix if None.
        pixel_format: as FFmpeg names it; "yuv420p" where the codec has nothing better. Odd sizes need "yuv444p".
        options: the encoder's options, e.g. {"crf": "28", "g": "30"}.
        times: presentation time of each frame in units of 1/fps, for variable frame rates; 0, 1, 2 ... if None.
        container_options: the muxer's options.

    Raises:
        UsageError: no codec is known for the suffix, or FFmpeg has no such encoder.
        MediaError: the file cannot be written, or there was no frame.
    """
    import av

    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.PANIC)
    name = codec or _BY_SUFFIX.get(Path(path).suffix.lower())
    if name is None:
        raise UsageError(f"no codec is known for {Path(path).suffix!r}; known suffixes: {', '.join(_BY_SUFFIX)}")
    encoder = _ENCODERS.get(name, name)
    rate = Fraction(fps).limit_denominator(1_000_000)
    count = 0
    clock = iter(times) if times is not None else None
    try:
        # Without the flag Matroska files carry random ids: the same frames must give the same file.
        muxer = {"fflags": "+bitexact", **(container_options or {})}
        with av.open(str(path), "w", options=muxer) as container:
            stream: Any = None
            for pixels in frames:
                if stream is None:
                    stream = container.add_stream(encoder, rate=rate)
                    stream.height, stream.width = pixels.shape[:2]
                    stream.pix_fmt = pixel_format or _PIXELS.get(name, "yuv420p")
                    stream.options = {**_LOSSY.get(encoder, {}), **(options or {})}
                    stream.codec_context.thread_count = 1
                    stream.codec_context.time_base = 1 / rate
                layout = "rgba" if pixels.shape[2] == 4 else "rgb24"
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=layout)
                frame.pts = next(clock) if clock is not None else count
                frame.time_base = 1 / rate
                container.mux(stream.encode(frame))
                count += 1
            if stream is not None:
                container.mux(stream.encode(None))
    except av.codec.codec.UnknownCodecError:
        raise UsageError(f"FFmpeg has no encoder {encoder!r}") from None
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(f"{path}: cannot be written: {error}") from error
    if not count:
        raise MediaError(f"{path}: no frames were given to write")
    return count


def write_image(path: str | Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Save uint8 (H, W, 3) or (H, W, 4) as a still, in the format of the suffix, by Pillow."""
    from PIL import Image

    Image.fromarray(pixels).save(path)
