"""Opening a file: what kind it is, which backend reads it, and what every backend offers."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tokcli.errors import MediaError, TokcliError, UsageError
from tokcli.media.limits import Limits
from tokcli.media.names import one_line
from tokcli.media.orientation import Orientation
from tokcli.media.plain_file import open_plain
from tokcli.media.sampling import Sampling
from tokcli.media.sniff import sniff
from tokcli.types import Frames, MediaInfo

FrameSize = Callable[[MediaInfo], tuple[int, int]]
"""Gives the (height, width) wanted for a file's frames."""

_DECODERS = ("auto", "pyav", "decord", "torchcodec")


@dataclass
class DecodeReport:
    """What decoding met; complete once the last chunk was taken."""

    bad_packets: int = 0
    """Packets that the demuxer or decoder refused; their frames are missing."""
    corrupt_frames: int = 0
    """Frames that the decoder gave but flagged as damaged."""
    decoded_frames: int = 0
    """Sampled frames that came out as planned: each the one that was to be taken, and not flagged as damaged."""
    doubtful_frames: int = 0
    """Those of them that may be predicted from what was lost: between damage and the next key frame."""
    absent_share: float = 0.0
    """Of the file's bytes: what is missing at its end, by its own layout."""
    first_bad_seconds: float | None = None
    """Where decoding met the first damage: seconds since the start of the stream; None where nowhere."""
    warnings: list[str] = field(default_factory=list)
    log_tail: list[str] = field(default_factory=list)
    """The decoder's last messages, oldest first."""

    def note(self, message: object) -> None:
        """Keep a decoder's message; only the last twenty stay."""
        self.log_tail.append(one_line(str(message)))
        del self.log_tail[:-20]

    def warn(self, message: str) -> None:
        """Keep a warning once."""
        if message not in self.warnings:
            self.warnings.append(message)


class MediaReader(ABC):
    """One open file. A context manager: leaving it closes the file, whatever happened."""

    info: MediaInfo
    report: DecodeReport
    path: str = ""
    """For messages."""
    orientation: Orientation = Orientation()
    """How stored pictures were laid to be upright; a still's EXIF aside."""

    @property
    def planned_frames(self) -> int:
        """Frames that the sampling takes, counting those that would lie in a part of the file that is missing."""
        return round(self.info.num_frames / (1.0 - self.report.absent_share))

    def chunks(self, max_frames: int) -> Iterator[Frames]:
        """The sampled frames in order, at most ``max_frames`` at a time; can be run through once.

        Pixels are ``info.height`` x ``info.width``, or what ``frame_size`` asked for. There may be fewer frames than
        ``info.num_frames`` where the file is damaged, never none.

        Raises:
            MediaError: nothing could be decoded, or a backend met damage that it cannot pass over.
        """
        try:
            yield from self._chunks(max_frames)
        except MediaError as error:
            raise MediaError(f"{one_line(self.path)}: {error}") from error

    @abstractmethod
    def _chunks(self, max_frames: int) -> Iterator[Frames]:
        """``chunks``, with messages that do not name the file."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file; can be called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def decoder_names() -> tuple[str, ...]:
    """What ``decoder`` may be; "auto" is PyAV for video and Pillow for stills."""
    return _DECODERS


def open_media(
    path: str,
    *,
    sampling: Sampling,
    limits: Limits,
    decoder: str = "auto",
    frame_size: FrameSize | None = None,
) -> MediaReader:
    """Open a video or still and find out what ``sampling`` will take of it.

    What a file is, its content decides, not its name. Stills and animated WebP and PNG are read by Pillow whatever
    ``decoder`` is; the others are video. Nothing is decoded before the limits were checked.

    Args:
        path: a local file; may hold surrogate escapes.
        decoder: one of ``decoder_names()``.
        frame_size: gives (height, width) for the frames, upright; they are scaled while they are converted to RGB (by
            swscale's bicubic filter in PyAV). None: full size.

    Raises:
        MediaError: the file cannot be read, is no media, is over a limit, or nothing in it can be decoded.
        UsageError: unknown decoder, or one that is not installed.
    """
    if decoder not in _DECODERS:
        raise UsageError(f"unknown decoder {decoder!r}; known: {', '.join(_DECODERS)}")
    with describe_reason(path):
        reader = _open(path, sampling, limits, decoder, frame_size)
        reader.path = path
        return reader


@contextmanager
def describe_reason(path: str) -> Iterator[None]:
    """Put the file's name in front of what is said about it."""
    try:
        yield
    except UsageError:
        raise
    except TokcliError as error:
        raise MediaError(f"{one_line(path)}: {error}") from error


def _open(path: str, sampling: Sampling, limits: Limits, decoder: str, frame_size: FrameSize | None) -> MediaReader:
    kind = sniff(first_bytes(path, limits))
    if kind in ("still", "animation"):
        from tokcli.media.image_pillow import open_pillow

        reader = open_pillow(path, sampling, limits, frame_size)
        if reader is not None:
            return reader
    if decoder == "decord":
        from tokcli.media.video_decord import open_decord

        return open_decord(path, sampling, limits, frame_size)
    if decoder == "torchcodec":
        from tokcli.media.video_torchcodec import open_torchcodec

        return open_torchcodec(path, sampling, limits, frame_size)
    from tokcli.media.video_pyav import open_pyav

    return open_pyav(path, sampling, limits, frame_size)


def first_bytes(path: str, limits: Limits) -> bytes:
    """A few kilobytes from the start of a plain file. Raises ``MediaError`` without its name."""
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise MediaError("is empty (0 bytes)")
            limits.check_bytes(size)
            return file.read(4096)
    except FileNotFoundError:
        reason = "is a link to a file that is missing" if Path(path).is_symlink() else "does not exist"
        raise MediaError(reason) from None
    except (OSError, ValueError) as error:
        raise MediaError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
