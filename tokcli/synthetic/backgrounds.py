"""Backgrounds by style: gradients, stripes, tiles, noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tokcli.synthetic.scene import Background

Pixels = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.floating[Any]]


def draw_background(background: Background, height: int, width: int) -> Pixels:
    """Return uint8 (height, width, 3), the same for the same background and size."""
    rng = np.random.default_rng(background.seed)
    share = _STYLE[background.style](background, height, width, rng)
    first, second = (np.array(color, np.float32) for color in (background.first, background.second))
    pixels = first + share[..., None] * (second - first)
    if background.grain:
        pixels += rng.integers(-background.grain, background.grain + 1, (height, width, 1), dtype=np.int8)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _along(background: Background, height: int, width: int) -> Plane:
    """Distance in pixels along the background's direction."""
    y, x = np.ogrid[0:height, 0:width]
    return (np.cos(background.angle) * x + np.sin(background.angle) * y).astype(np.float32)


def _gradient(background: Background, height: int, width: int, rng: np.random.Generator) -> Plane:
    along = _along(background, height, width)
    low, high = along.min(), along.max()
    return (along - low) / (high - low)


def _stripes(background: Background, height: int, width: int, rng: np.random.Generator) -> Plane:
    return 0.5 + 0.5 * np.sin(_along(background, height, width) * np.float32(2 * np.pi / background.period_px))


def _tiles(background: Background, height: int, width: int, rng: np.random.Generator) -> Plane:
    side = background.period_px
    tiles = rng.random((height // side + 1, width // side + 1), dtype=np.float32)
    return tiles.repeat(side, 0).repeat(side, 1)[:height, :width]


def _noise(background: Background, height: int, width: int, rng: np.random.Generator) -> Plane:
    return rng.random((height, width), dtype=np.float32)


_STYLE: dict[str, Callable[[Background, int, int, np.random.Generator], Plane]] = {
    "gradient": _gradient,
    "noise": _noise,
    "stripes": _stripes,
    "tiles": _tiles,
}
"""How far each pixel lies between the background's two colours, 0 to 1."""
