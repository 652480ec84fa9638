"""Single frames to arrays of at most so many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from tokcli.errors import UsageError
from tokcli.media.orientation import Pixels
from tokcli.types import Frames

Source = TypeVar("Source")


def stack(
    frames: Iterable[tuple[Source, float, int, int]],
    write: Callable[[Source, Pixels], None],
    size: tuple[int, int],
    max_frames: int,
) -> Iterator[Frames]:
    """Chunks of frames given as (source, seconds, number in the source, repeats).

    ``write(source, out)`` fills ``out`` uint8 (height, width, 3); it is called once a source, repeats are copied.
    """
    if max_frames < 1:
        raise UsageError(f"chunks of at least 1 frame are possible, got {max_frames}")
    pixels = np.empty((max_frames, *size, 3), dtype=np.uint8)
    times: list[float] = []
    indices: list[int] = []
    for source, seconds, number, repeats in frames:
        picture: Pixels | None = None
        for _ in range(repeats):
            place = len(times)
            if picture is None:
                write(source, pixels[place])
            else:
                pixels[place] = picture
            picture = pixels[place]
            times.append(seconds)
            indices.append(number)
            if len(times) == max_frames:
                yield Frames(pixels, np.array(times, np.float64), np.array(indices, np.int64))
                pixels = np.empty((max_frames, *size, 3), dtype=np.uint8)
                times, indices = [], []
    if times:
        yield Frames(pixels[: len(times)], np.array(times, np.float64), np.array(indices, np.int64))
