"""Turning and mirroring stored pictures the way they are to be looked at."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways to lay a picture; the flips come after the transposition."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def name(self) -> str:
        """For people: the turn clockwise, and what is mirrored."""
        turned = {(False, False, False): "upright", (True, True, False): "turned by 90 degrees"}
        turned |= {(False, True, True): "turned by 180 degrees", (True, False, True): "turned by 270 degrees"}
        return turned.get((self.transpose, self.flip_x, self.flip_y), "mirrored")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) upright of a stored size, and the other way round."""
        return (width, height) if self.transpose else (height, width)

    def apply(self, pixels: Pixels) -> Pixels:
        """Upright view of stored pixels (H, W, 3); nothing is copied."""
        if self.transpose:
            pixels = pixels.transpose(1, 0, 2)
        return pixels[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


def from_display_matrix(data: bytes) -> Orientation:
    """The orientation nearest to an FFmpeg display matrix: nine native int32 (a b u, c d v, x y w).

    It maps a stored point (p, q) to (a p + c q, b p + d q), so b and c alone mean transposed axes. Containers write
    quarter turns and mirrorings; any other angle goes to the nearest of these.
    """
    a, b, _, c, d = struct.unpack_from("=5i", data)
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transpose=True, flip_x=c < 0, flip_y=b < 0)
    return Orientation(flip_x=a < 0, flip_y=d < 0)
