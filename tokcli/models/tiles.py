"""Into which tiles stills are cut for towers of one size: pure arithmetic, as the families' processors do it."""

from __future__ import annotations

import math
from dataclasses import dataclass


class Tiling:
    """Base of the rules. Stills go to the tower's adapter as they are, and it makes tiles of them."""

    side: int
    """Pixels along the side of a tile."""


@dataclass(frozen=True)
class AnyresTiling(Tiling):
    """LLaVA-NeXT's rule (arXiv:2310.03744, section 3.4): fit the still into the best of some canvases, pad, and cut."""

    side: int
    pinpoints: tuple[tuple[int, int], ...]
    """(height, width) in pixels of the canvases, multiples of ``side``."""

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the canvas that shows most of a still, and of those the one with the least padding."""
        best, most, least = self.pinpoints[0], 0, math.inf
        for canvas in self.pinpoints:
            scale = min(canvas[1] / width, canvas[0] / height)
            shown = min(int(width * scale) * int(height * scale), width * height)
            wasted = canvas[0] * canvas[1] - shown
            if shown > most or (shown == most and wasted < least):
                best, most, least = canvas, shown, wasted
        return best

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the still inside its canvas."""
        rows, columns = self.canvas(height, width)
        by_width, by_height = columns / width, rows / height
        if by_width < by_height:
            return min(math.ceil(height * by_width), rows), columns
        return rows, min(math.ceil(width * by_height), columns)

    def unpadded(self, height: int, width: int, per_tile: int) -> tuple[int, int]:
        """(rows, columns) of tokens that are left of the canvas when those of the padding are cut off.

        ``per_tile`` is the number of tokens along the side of a tile.
        """
        rows, columns = (length // self.side * per_tile for length in self.canvas(height, width))
        if width / height > columns / rows:
            padding = (rows - int(round(height * (columns / width), 7))) // 2
            return rows - 2 * padding, columns
        padding = (columns - int(round(width * (rows / height), 7))) // 2
        return rows, columns - 2 * padding


@dataclass(frozen=True)
class CanvasTiling(Tiling):
    """InternVL's rule (arXiv:2404.16821, section 3.2): stretch the still to the grid of tiles nearest to its shape."""

    side: int
    min_tiles: int
    max_tiles: int

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tiles. Of equally near grids the larger, up to twice the still's own area."""
        shapes = [
            (columns, rows)
            for columns in range(1, self.max_tiles + 1)
            for rows in range(1, self.max_tiles + 1)
            if self.min_tiles <= columns * rows <= self.max_tiles
        ]
        best, nearest = (1, 1), math.inf
        for columns, rows in sorted(shapes, key=lambda shape: shape[0] * shape[1]):
            distance = abs(width / height - columns / rows)
            large = width * height > 0.5 * self.side * self.side * columns * rows
            if distance < nearest or (distance == nearest and large):
                best, nearest = (columns, rows), distance
        return best[1], best[0]


LONGEST_SIDE = 4096
"""Pixels beyond which Idefics3 makes no side of a still."""


def fit_longest(height: int, width: int, longest: int) -> tuple[int, int]:
    """(height, width) with the longer side ``longest`` pixels long, the other rounded to an even number."""
    aspect = width / height
    if width >= height:
        rows, columns = int(longest / aspect), longest
        rows += rows % 2
    else:
        rows, columns = longest, int(longest * aspect)
        columns += columns % 2
    rows, columns = max(rows, 1), max(columns, 1)
    aspect = columns / rows
    if columns >= rows and columns > LONGEST_SIDE:
        rows, columns = int(LONGEST_SIDE / aspect), LONGEST_SIDE
    elif rows > columns and rows > LONGEST_SIDE:
        rows, columns = LONGEST_SIDE, int(LONGEST_SIDE * aspect)
    return max(rows, 1), max(columns, 1)


@dataclass(frozen=True)
class SplitTiling(Tiling):
    """Idefics3's rule (arXiv:2408.12637): bring the longer side to a length, round both up to whole tiles."""

    side: int
    longest_edge: int
    """Pixels of the longer side before rounding."""
    split: bool
    """Whether the still is cut; if not, it is given to the tower as one tile."""

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) to which the still is resized first."""
        return fit_longest(height, width, self.longest_edge)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tiles; (1, 1) stands for the whole still alone."""
        if not self.split:
            return 1, 1
        rows, columns = self.fitted(height, width)
        aspect = columns / rows
        if columns >= rows:
            across = math.ceil(columns / self.side)
            return math.ceil(int(across * self.side / aspect) / self.side), across
        down = math.ceil(rows / self.side)
        return down, math.ceil(int(down * self.side * aspect) / self.side)
