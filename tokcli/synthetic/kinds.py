"""The kinds of scene: each a function that makes one from a random generator, registered by name."""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Callable

import numpy as np

from tokcli.errors import UsageError
from tokcli.synthetic.scene import COLORS, MOTIONS, SHAPES, Background, Scene, SceneObject

MAX_OBJECTS = 4
SHORT_SIDE_PX, LONG_SIDE_PX = 112, 256
EDGE_PX = 2
"""What stays free between an object and the edge of the canvas, at all times."""
GAP_PX = 4
"""What stays free between two objects at 25 moments of a clip, which keeps them apart in between too."""
SPEED_PX = (6.0, 14.0)
"""Pixels a second: slow enough to stay on the canvas, fast enough to be seen in two frames half a second apart."""

_KINDS: dict[str, Callable[[int], Scene]] = {}


def scene_kinds() -> tuple[str, ...]:
    """Return the names that ``make_scene`` takes."""
    return tuple(_KINDS)


def make_scene(kind: str, seed: int) -> Scene:
    """Return the scene of that kind and seed, always the same one; ``UsageError`` for an unknown kind."""
    if kind not in _KINDS:
        near = difflib.get_close_matches(kind, _KINDS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"unknown kind of scene {kind!r}; known kinds: {', '.join(_KINDS)}{hint}")
    return _KINDS[kind](seed)


def clip_kind(name: str) -> Callable[[Callable[[int], Scene]], Callable[[int], Scene]]:
    """Register the function under it, which makes a scene from a seed, as a kind of scene."""

    def register(make: Callable[[int], Scene]) -> Callable[[int], Scene]:
        _KINDS[name] = make
        return make

    return register


@clip_kind("static")
def static(seed: int) -> Scene:
    """A clip of 4 to 12 seconds by a camera that stands still; each object moves one way or not at all."""
    rng = _generator("static", seed)
    fps = float(rng.integers(8, 13))
    duration = round(rng.uniform(4, 12) * fps) / fps
    width, height, objects = _populate(rng, duration)
    return Scene("static", seed, width, height, fps, duration, _background(rng), objects)


@clip_kind("still")
def still(seed: int) -> Scene:
    """A picture."""
    rng = _generator("still", seed)
    width, height, objects = _populate(rng, 0)
    return Scene("still", seed, width, height, 1.0, 0.0, _background(rng), objects, still=True)


def _generator(kind: str, seed: int) -> np.random.Generator:
    return np.random.default_rng((zlib.crc32(kind.encode()), seed))


def _background(rng: np.random.Generator) -> Background:
    style = str(rng.choice(["gradient", "noise", "tiles", "stripes"]))
    # Dark and greyish, so that no background is taken for an object.
    first, second = (_shade(rng.integers(20, 116, 1).repeat(3), 20, rng) for _ in range(2))
    period, grain = int(rng.integers(8, 48)), int(rng.choice([0, 4, 12]))
    return Background(style, int(rng.integers(2**31)), first, second, float(rng.uniform(0, np.pi)), period, grain)


def _shade(rgb: np.ndarray, spread: int, rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = np.clip(rgb + rng.integers(-spread, spread + 1, 3), 0, 255)
    return int(red), int(green), int(blue)


def _populate(rng: np.random.Generator, duration: float) -> tuple[int, int, tuple[SceneObject, ...]]:
    """Return width, height and objects that never leave the canvas nor meet.

    What the answers depend on is drawn first and stays; only the canvas and the places are drawn again when they do
    not fit, so that every answer stays as frequent as the others.
    """
    count = int(rng.integers(1, MAX_OBJECTS + 1))
    colors, shapes = rng.permutation(list(COLORS))[:count], rng.permutation(SHAPES)[:count]
    motions = rng.choice(list(MOTIONS), count) if duration else ["still"] * count
    looks = [
        (str(shape), str(color), str(motion), _shade(np.array(COLORS[str(color)]), 10, rng))
        for shape, color, motion in zip(shapes, colors, motions)
    ]
    while True:
        # Small canvases are the more frequent, being the cheaper ones.
        width, height = (int(side) // 2 * 2 for side in _between(SHORT_SIDE_PX, LONG_SIDE_PX + 2, rng.random(2) ** 1.5))
        placed: list[SceneObject] = []
        for look in looks:
            item = _place(rng, look, placed, width, height, duration)
            if item is None:
                break
            placed.append(item)
        else:
            return width, height, tuple(placed)


def _between(low: float, high: float, share: np.ndarray) -> np.ndarray:
    return low + (high - low) * share


def _place(
    rng: np.random.Generator,
    look: tuple[str, str, str, tuple[int, int, int]],
    placed: list[SceneObject],
    width: int,
    height: int,
    duration: float,
) -> SceneObject | None:
    """Return the object at a free place, or None when twelve tries found none."""
    shape, color, motion, rgb = look
    right, down = MOTIONS[motion]
    times = np.linspace(0, duration, 25) if duration else np.zeros(1)
    for _ in range(12):
        radius = float(rng.uniform(10, 24))
        speed = float(rng.uniform(*SPEED_PX)) if right or down else 0.0
        travel, margin = speed * duration, radius + EDGE_PX
        room_x, room_y = width - 2 * margin - travel * abs(right), height - 2 * margin - travel * abs(down)
        if min(room_x, room_y) < 0:
            continue
        x = margin + rng.random() * room_x + travel * (right < 0)
        y = margin + rng.random() * room_y + travel * (down < 0)
        item = SceneObject(shape, color, motion, rgb, radius, x, y, speed)
        if all(_apart(item, other, times) for other in placed):
            return item
    return None


def _apart(one: SceneObject, other: SceneObject, times: np.ndarray) -> bool:
    """Tell whether the squares around two objects are ``GAP_PX`` apart, horizontally or vertically, at those times."""
    (ax, ay), (bx, by) = (_track(item, times) for item in (one, other))
    apart = np.maximum(np.abs(ax - bx), np.abs(ay - by))
    return bool((apart >= one.radius + other.radius + GAP_PX).all())


def _track(item: SceneObject, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    right, down = MOTIONS[item.motion]
    return item.x + right * item.speed * times, item.y + down * item.speed * times
