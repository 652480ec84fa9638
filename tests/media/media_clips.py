"""Clips whose every frame says its own number, and a way to read the numbers back from decoded pixels."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokcli.media import DecodeReport, Limits, Sampling, open_media, write_video
from tokcli.types import Frames, MediaInfo

LIMITS = Limits()
BITS = 8


def numbered(number: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A drifting gradient; its top half holds ``number`` as eight black or white columns, highest bit first."""
    y, x = np.mgrid[:height, :width]
    frame = np.stack([(x + number) % 256, (y * 2) % 256, np.full_like(x, 90)], axis=-1).astype(np.uint8)
    for bit in range(BITS):
        lit = number >> (BITS - 1 - bit) & 1
        frame[: height // 2, bit * width // BITS : (bit + 1) * width // BITS] = 235 if lit else 16
    return frame


def number_of(pixels: np.ndarray) -> int:
    """The number that a decoded frame shows."""
    height, width = pixels.shape[:2]
    number = 0
    for bit in range(BITS):
        column = (2 * bit + 1) * width // (2 * BITS)
        number = number << 1 | int(pixels[height // 4, column].mean() > 127)
    return number


def render(path: Path, count: int = 50, fps: float = 25, *, size: tuple[int, int] = (96, 128), **how: Any) -> Path:
    """``count`` numbered frames as a video; ``how`` goes to ``write_video``."""
    write_video(path, (numbered(number, *size) for number in range(count)), fps, **how)
    return path


def write_transparent(path: Path, count: int = 10) -> Path:
    """Numbered frames, opaque in the upper half, half transparent below it, and fully at the bottom."""
    alpha = np.zeros((96, 128, 1), np.uint8)
    alpha[:48], alpha[48:72] = 255, 128
    frames = (np.concatenate([numbered(number), alpha], axis=-1) for number in range(count))
    write_video(path, frames, 25, codec="vp9", pixel_format="yuva420p")
    return path


def read(path: Path | str, sampling: Sampling | None = None, *, chunk: int = 7, **how: Any) -> Decoded:
    """Everything that ``open_media`` gives for the sampling (default: every frame)."""
    how.setdefault("limits", LIMITS)
    with open_media(str(path), sampling=sampling or Sampling(fps=None), **how) as reader:
        return Decoded(reader.info, list(reader.chunks(chunk)), reader.report)


needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg program is not installed")


def ffmpeg_frames(path: Path, info: MediaInfo, *filters: str, most: int | None = None) -> np.ndarray:
    """What the ffmpeg program decodes: uint8 (T, H, W, 3), upright, of the size that ``info`` says."""
    command = ["ffmpeg", "-v", "quiet", "-nostdin", "-i", f"file:{path}", "-an", "-vsync", "passthrough"]
    command += ["-vf", ",".join(filters)] if filters else []
    command += ["-frames:v", str(most)] if most else []
    command += ["-sws_flags", "bicubic", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=120).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, info.height, info.width, 3)


class Decoded:
    """Chunks put together."""

    def __init__(self, info: MediaInfo, chunks: Iterable[Frames], report: DecodeReport) -> None:
        self.chunks = list(chunks)
        self.info, self.report = info, report
        self.pixels = np.concatenate([chunk.pixels for chunk in self.chunks])
        self.times = np.concatenate([chunk.times for chunk in self.chunks])
        self.indices = np.concatenate([chunk.indices for chunk in self.chunks])

    def __len__(self) -> int:
        return len(self.pixels)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.pixels)

    @property
    def numbers(self) -> list[int]:
        """The numbers that the frames show."""
        return [number_of(frame) for frame in self.pixels]


def same(one: Decoded, other: Decoded) -> bool:
    """Whether two readings agree in every pixel, time and index."""
    return (
        np.array_equal(one.pixels, other.pixels)
        and np.array_equal(one.times, other.times)
        and np.array_equal(one.indices, other.indices)
    )
