"""Stills to tiles, as the arithmetic of :mod:`tokcli.models.tiles` says."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tokcli.models.preprocess import resize_frames
from tokcli.models.tiles import AnyresTiling, CanvasTiling, SplitTiling

Pixels = npt.NDArray[np.uint8]


def anyres_tiles(still: Pixels, tiling: AnyresTiling, resample: str) -> Pixels:
    """The whole still as a tile, then those of its padded canvas, row by row.

    Args:
        still: uint8 (1, h, w, 3).

    Returns:
        uint8 (1 + tiles, side, side, 3).
    """
    size = (int(still.shape[1]), int(still.shape[2]))
    whole = resize_frames(still, (tiling.side, tiling.side), resample)
    height, width = tiling.fitted(*size)
    canvas = np.zeros((1, *tiling.canvas(*size), 3), dtype=np.uint8)
    top, left = (canvas.shape[1] - height) // 2, (canvas.shape[2] - width) // 2
    canvas[:, top : top + height, left : left + width] = resize_frames(still, (height, width), resample)
    return np.concatenate([whole, cut(canvas, tiling.side)])


def canvas_tiles(still: Pixels, tiling: CanvasTiling, resample: str) -> Pixels:
    """The tiles of the stretched still, row by row, then, if there are several, the whole still as one.

    Args:
        still: uint8 (1, h, w, 3).

    Returns:
        uint8 (tiles, side, side, 3).
    """
    rows, columns = tiling.grid(int(still.shape[1]), int(still.shape[2]))
    tiles = cut(resize_frames(still, (rows * tiling.side, columns * tiling.side), resample), tiling.side)
    if len(tiles) == 1:
        return tiles
    return np.concatenate([tiles, resize_frames(still, (tiling.side, tiling.side), resample)])


def split_tiles(still: Pixels, tiling: SplitTiling, resample: str) -> Pixels:
    """The tiles of the still, row by row, then the whole as one; the whole alone where it is not cut.

    Resized in two or three steps, as the processors do it: each rounds to grey levels.

    Args:
        still: uint8 (1, h, w, 3).

    Returns:
        uint8 (tiles, side, side, 3).
    """
    size = (int(still.shape[1]), int(still.shape[2]))
    square = (tiling.side, tiling.side)
    rows, columns = tiling.grid(*size)
    canvas = resize_frames(still, tiling.fitted(*size), resample)
    canvas = resize_frames(canvas, (rows * tiling.side, columns * tiling.side), resample)
    if rows * columns == 1:
        return canvas
    return np.concatenate([cut(canvas, tiling.side), resize_frames(canvas, square, resample)])


def cut(canvas: Pixels, side: int) -> Pixels:
    """Squares of uint8 (1, h, w, 3), row by row: (h / side * w / side, side, side, 3)."""
    _, height, width, channels = canvas.shape
    squares = canvas.reshape(height // side, side, width // side, side, channels).swapaxes(1, 2)
    return squares.reshape(-1, side, side, channels)
