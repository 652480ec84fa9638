"""From a scene to pixels: backgrounds by style, shapes by signed distance, edges smoothed over one pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tokcli.synthetic.scene import Background, Scene, SceneObject

Pixels = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.floating[Any]]


def render_frames(scene: Scene) -> Iterator[Pixels]:
    """Yield the clip's frames at its own rate, uint8 (H, W, 3); a still has one."""
    yield from render_times(scene, [index / scene.fps for index in range(scene.num_frames)])


def render_at(scene: Scene, seconds: float) -> Pixels:
    """Return what the scene shows at that time, uint8 (H, W, 3)."""
    return next(render_times(scene, [seconds]))


def render_times(scene: Scene, times: Iterable[float]) -> Iterator[Pixels]:
    """Yield what the scene shows at each of the times (seconds), uint8 (H, W, 3)."""
    background = _draw_background(scene.background, scene.height, scene.width)
    for seconds in times:
        frame = background.copy()
        for item in scene.objects:
            rows, columns, alpha = coverage(scene, item, seconds)
            patch = frame[rows, columns]
            color = np.array(item.rgb, np.float32)
            patch[:] = (patch + alpha[..., None] * (color - patch) + 0.5).astype(np.uint8)
        yield frame


def coverage(scene: Scene, item: SceneObject, seconds: float) -> tuple[slice, slice, Plane]:
    """Return the rows and columns that an object may touch, and how far it covers each pixel there, 0 to 1."""
    x, y = item.center(seconds)
    reach = item.radius + 1
    rows = slice(max(0, int(y - reach)), min(scene.height, int(y + reach) + 2))
    columns = slice(max(0, int(x - reach)), min(scene.width, int(x + reach) + 2))
    # Pixel (0, 0) is the square from 0 to 1, so its centre is at one half.
    dx = np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - x)
    dy = (np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(0.5 - y))[:, None]
    alpha = np.clip(0.5 - _DISTANCE[item.shape](dx, dy, item.radius), 0, 1).astype(np.float32)
    return rows, columns, alpha


def _circle(dx: Plane, dy: Plane, r: float) -> Plane:
    return np.hypot(dx, dy) - r


def _square(dx: Plane, dy: Plane, r: float) -> Plane:
    return np.maximum(np.abs(dx), np.abs(dy)) - 0.88 * r


def _triangle(dx: Plane, dy: Plane, r: float) -> Plane:
    """Point upwards: corners (0, -r), (-0.95 r, 0.75 r) and (0.95 r, 0.75 r)."""
    side = (1.75 * np.abs(dx) - 0.95 * (dy + r)) / np.hypot(1.75, 0.95)
    return np.maximum(dy - 0.75 * r, side)


def _cross(dx: Plane, dy: Plane, r: float) -> Plane:
    across, along = np.abs(dx), np.abs(dy)
    upright = np.maximum(across - 0.34 * r, along - r)
    return np.minimum(upright, np.maximum(across - r, along - 0.34 * r))


def _ring(dx: Plane, dy: Plane, r: float) -> Plane:
    return np.abs(np.hypot(dx, dy) - 0.74 * r) - 0.26 * r


_DISTANCE: dict[str, Callable[[Plane, Plane, float], Plane]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
}
"""Signed distance in pixels to the edge of a shape, negative inside, from offsets to its centre."""


def _draw_background(background: Background, height: int, width: int) -> Pixels:
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
