"""From a scene to pixels: shots over one another, shapes by signed distance, characters by dots, then the camera."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from tokcli.synthetic.backgrounds import Pixels, Plane, draw_background
from tokcli.synthetic.glyphs import DOTS
from tokcli.synthetic.scene import Glyph, Scene, SceneObject, Shot


def render_frames(scene: Scene) -> Iterator[Pixels]:
    """Yield the clip's frames at its own rate, uint8 (H, W, 3); a still has one."""
    yield from render_times(scene, [index / scene.fps for index in range(scene.num_frames)])


def render_at(scene: Scene, seconds: float) -> Pixels:
    """Return what the scene shows at that time, uint8 (H, W, 3)."""
    return next(render_times(scene, [seconds]))


def render_times(scene: Scene, times: Iterable[float]) -> Iterator[Pixels]:
    """Yield what the scene shows at each of the times (seconds), uint8 (H, W, 3)."""
    backdrops = {shot.start: _Backdrop(scene, shot) for shot in scene.shots}
    for seconds in times:
        frame: Pixels | None = None
        for shot, share in scene.shot_at(seconds):
            picture = _draw_shot(scene, shot, backdrops[shot.start].at(seconds), seconds)
            frame = picture if frame is None else _mix(frame, picture, share)
        assert frame is not None
        for glyph in scene.glyphs:
            if glyph.shown(seconds):
                _draw_glyph(frame, glyph)
        yield _through_camera(scene, frame, seconds)


class _Backdrop:
    """A shot's background, drawn once, as large as the camera will see of it."""

    def __init__(self, scene: Scene, shot: Shot) -> None:
        self._scene, self._pan = scene, scene.camera.pan
        reach = [math.ceil(abs(speed) * scene.duration_seconds) for speed in self._pan]
        self._pixels = draw_background(shot.background, scene.height + reach[1], scene.width + reach[0])
        # Where the speed is negative, the view begins at the far end.
        self._origin = [size if speed < 0 else 0 for size, speed in zip(reach, self._pan)]

    def at(self, seconds: float) -> Pixels:
        x, y = (int(start + speed * seconds) for start, speed in zip(self._origin, self._pan))
        return self._pixels[y : y + self._scene.height, x : x + self._scene.width].copy()


def _draw_shot(scene: Scene, shot: Shot, frame: Pixels, seconds: float) -> Pixels:
    for item in shot.objects:
        rows, columns, alpha = coverage(scene, item, seconds)
        patch = frame[rows, columns]
        color = np.array(item.rgb_at(seconds), np.float32)
        patch[:] = (patch + alpha[..., None] * (color - patch) + 0.5).astype(np.uint8)
    return frame


def _mix(below: Pixels, above: Pixels, share: float) -> Pixels:
    return (below + np.float32(share) * (above.astype(np.float32) - below) + 0.5).astype(np.uint8)


def _draw_glyph(frame: Pixels, glyph: Glyph) -> None:
    rows, columns = plate_of(glyph)
    frame[rows, columns] = glyph.plate
    dots = DOTS[glyph.character].repeat(glyph.scale, 0).repeat(glyph.scale, 1)
    inner = frame[rows.start + glyph.scale : rows.stop - glyph.scale, columns.start + glyph.scale :]
    inner[:, : dots.shape[1]][dots] = glyph.rgb


def _through_camera(scene: Scene, frame: Pixels, seconds: float) -> Pixels:
    camera = scene.camera
    if camera.shake_px:
        right, down = shake(scene, seconds)
        frame = np.roll(frame, (down, right), (0, 1))
    if camera.noise:
        rng = np.random.default_rng((scene.seed, round(seconds * 1000)))
        noise = rng.integers(-camera.noise, camera.noise + 1, frame.shape, dtype=np.int16)
        frame = np.clip(frame + noise, 0, 255).astype(np.uint8)
    return frame


def shake(scene: Scene, seconds: float) -> tuple[int, int]:
    """Return how many pixels (right, down) the trembling camera moves the picture at that time."""
    # Two waves whose periods don't divide one another, and none a second.
    reach, phase = scene.camera.shake_px, scene.seed % 97
    across = 0.6 * math.sin(9.1 * seconds + phase) + 0.4 * math.sin(5.3 * seconds + 2 * phase)
    along = 0.6 * math.sin(8.3 * seconds + 3 * phase) + 0.4 * math.sin(4.7 * seconds + phase)
    return round(reach * across), round(reach * along)


def coverage(scene: Scene, item: SceneObject, seconds: float) -> tuple[slice, slice, Plane]:
    """Return the rows and columns that an object may touch, and how far it covers each pixel there, 0 to 1."""
    x, y = item.center(seconds)
    radius = item.radius_at(seconds)
    reach = radius + 1
    rows = slice(max(0, int(y - reach)), min(scene.height, int(y + reach) + 2))
    columns = slice(max(0, int(x - reach)), min(scene.width, int(x + reach) + 2))
    # Pixel (0, 0) is the square from 0 to 1, so its centre is at one half.
    dx = np.arange(columns.start, columns.stop, dtype=np.float32) + np.float32(0.5 - x)
    dy = (np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(0.5 - y))[:, None]
    alpha = np.clip(0.5 - _DISTANCE[item.shape](dx, dy, radius), 0, 1).astype(np.float32)
    return rows, columns, alpha


def plate_of(glyph: Glyph) -> tuple[slice, slice]:
    """Return the rows and columns of a character's plate."""
    width, height = glyph.size
    top, left = round(glyph.y - height / 2), round(glyph.x - width / 2)
    return slice(top, top + height), slice(left, left + width)


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
