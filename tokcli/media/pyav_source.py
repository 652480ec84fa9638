"""One open container and decoder of PyAV: packets out, frames out, damage counted.

The rules (each from a failure seen in the field): one decoding thread, no frame threads; FFmpeg's log never goes
through Python; containers are always closed; packets are decoded one by one, so that a bad one costs itself only.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import av
import av.error

from tokcli.errors import MediaError
from tokcli.media.bitstream import Bitstream
from tokcli.media.ffmpeg import set_log_level
from tokcli.media.heartbeat import beat
from tokcli.media.limits import Limits
from tokcli.media.reader import DecodeReport

BAD_RUN_LIMIT = 250
"""Give up after so many packets in a row that do not decode."""
READ_ERROR_LIMIT = 16
"""Give up after so many read errors in a row."""
_PLAYLISTS = ("hls", "concat", "dash", "imf", "webm_dash_manifest")

set_log_level()


class PyavSource:
    """The best video stream of a file.

    Raises:
        MediaError: the file cannot be opened, has no video, or its picture is over the limit.
    """

    def __init__(self, path: str, limits: Limits, report: DecodeReport) -> None:
        self.report = report
        self.doubtful = False
        """Whether frames from here on may be predicted from what was lost; cleared by whoever sees a key frame."""
        self._path, self._limits = path, limits
        self._open()

    def _open(self) -> None:
        # The name after "file:" is taken as it is: no URL, no pattern, no option, whatever it looks like.
        name = "file:" + os.path.abspath(self._path)  # noqa: PTH100 - keeps surrogate escapes and links as they are
        # Probing may decode a picture, so the limit is FFmpeg's own too.
        options = {"protocol_whitelist": "file", "max_pixels": str(self._limits.max_pixels)}
        try:
            self._container = av.open(name, options=options, metadata_errors="ignore")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise MediaError(f"cannot be opened as a video: {_reason(error)}") from None
        try:
            self.stream = self._choose()
            self.bits = Bitstream(self.stream.codec_context.codec.canonical_name, self.stream.codec_context.extradata)
            self._limits.check_size(self.stream.codec_context.width, self.stream.codec_context.height)
            self.context = self._decoder()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; can be called again."""
        self._container.close()

    def describe(self) -> dict[str, Any]:
        """What the headers say, which may be wrong: JSON-able."""
        container = self._container
        rate, aspect = self.stream.average_rate, self.stream.sample_aspect_ratio
        return {
            "format": container.format.name,
            "duration_seconds_header": None if container.duration is None else container.duration / av.time_base,
            "streams": [
                f"{stream.index}: {stream.type} {stream.codec_context.codec.canonical_name}"
                if stream.codec_context
                else f"{stream.index}: {stream.type} of an unknown codec"
                for stream in container.streams
            ],
            "taken": self.stream.index,
            "codec": self.bits.codec,
            "width": self.stream.codec_context.width,
            "height": self.stream.codec_context.height,
            "limit_pixels": self._limits.max_pixels,
            "pixel_format": self.stream.codec_context.pix_fmt,
            "frames_header": self.stream.frames,
            "frames_per_second_header": None if rate is None else round(float(rate), 3),
            "pixel_aspect": None if aspect is None else str(aspect),
        }

    def packets(self) -> Iterator[Any]:
        """Packets with data, in decoding order, from where the file is read now; read errors are counted."""
        errors = 0
        while errors < READ_ERROR_LIMIT:
            try:
                for packet in self._container.demux(self.stream):
                    beat()
                    if packet.size:
                        errors = 0
                        yield packet
                return
            except (av.error.FFmpegError, OSError, ValueError) as error:
                errors += 1
                self.report.bad_packets += 1
                self._damaged(None, error)
        self.report.warn(f"reading was given up after {errors} errors in a row")

    def rewind(self, first: tuple[int | None, int | None, int]) -> Iterator[Any]:
        """Packets from the start again; ``first`` tells what the first of them is: (pts, dts, bytes).

        Seeking is cheaper than opening anew, but lands elsewhere in some containers.
        """
        start = first[1] if first[1] is not None else first[0]
        packet = None
        try:
            self._container.seek(start or 0, stream=self.stream, backward=True)
            self.context.flush_buffers()
            packet = next(self._container.demux(self.stream), None)
        except (av.error.FFmpegError, OSError, ValueError):
            packet = None
        if packet is not None and (packet.pts, packet.dts, packet.size) == first:
            return itertools.chain((packet,), self.packets())
        self.close()
        self._open()
        return self.packets()

    def decode(self, packet: Any) -> list[Any]:
        """Frames that come out after ``packet``; None ends the stream and empties the decoder."""
        try:
            beat()
            frames: list[Any] = self.context.decode(packet)
        except (av.error.FFmpegError, ValueError) as error:
            self.report.bad_packets += packet is not None
            self._damaged(packet, error)
            raise BadPacketError from None
        for frame in frames:
            if frame.is_corrupt:
                self.report.corrupt_frames += 1
                self._damaged(frame)
        return frames

    def _damaged(self, at: Any, error: BaseException | None = None) -> None:
        """Note damage at a packet or frame; from there on frames are doubtful until one that needs no other."""
        self.doubtful = True
        if error is not None:
            self.report.note(_reason(error))
        if self.report.first_bad_seconds is None and at is not None and at.pts is not None and at.time_base:
            start = self.stream.start_time or 0
            self.report.first_bad_seconds = float(at.pts * at.time_base - start * self.stream.time_base)

    def _choose(self) -> Any:
        if any(name in _PLAYLISTS for name in self._container.format.name.split(",")):
            raise MediaError("is a playlist that names other files; give those files themselves")
        if self._container.format.name == "image2" or self._container.format.name.endswith("_pipe"):
            raise MediaError("is neither a video nor a picture that Pillow can read")
        stream = self._container.streams.best("video")
        if stream is None:
            kinds = sorted({stream.type for stream in self._container.streams})
            others = f"; what it holds is {', '.join(kinds)}" if kinds else ""
            raise MediaError(f"holds no video stream{others}")
        if stream.codec_context is None:
            raise MediaError("holds a video whose codec this FFmpeg does not know")
        return stream

    def _decoder(self) -> Any:
        context = self.stream.codec_context
        alpha = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(self.bits.codec)
        if alpha and self.stream.metadata.get("alpha_mode") == "1" and alpha in av.codecs_available:
            # FFmpeg's own VP8 and VP9 decoders leave the alpha channel out.
            context = av.CodecContext.create(alpha, "r")
            context.extradata = self.stream.codec_context.extradata
        context.options = {"max_pixels": str(self._limits.max_pixels)}
        context.thread_type = "NONE"
        context.thread_count = 1
        return context


class BadPacketError(Exception):
    """One packet did not decode; it was counted."""


def decoder_version() -> str:
    """Name and versions as the cache stores them."""
    return f"pyav {av.__version__} (ffmpeg {av.ffmpeg_version_info})"


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
