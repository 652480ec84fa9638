"""Where objects and characters go, so that they stay on the canvas and never meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tokcli.synthetic.scene import COLORS, MOTIONS, PLACES, SHAPES, Background, Glyph, SceneObject

MAX_OBJECTS = 4
EDGE_PX = 2
"""What stays free between an object and the edge of the canvas, at all times."""
GAP_PX = 4
"""What stays free between two objects twice a second, which keeps them apart in between too."""
SPEED_PX = (6.0, 14.0)
"""Pixels a second: slow enough to stay on the canvas, fast enough to be seen in two frames half a second apart."""
UNSURE_PLACE = 0.07
"""Share of a side around the middle, to each side, where a place is neither left nor right."""

Look = tuple[str, str, str, tuple[int, int, int]]
"""Shape, colour, motion and shade of an object."""


@dataclass(frozen=True)
class Room:
    """How large canvases and objects are."""

    side_px: tuple[int, int] = (112, 256)
    radius_px: tuple[float, float] = (10.0, 24.0)
    edge_px: float = EDGE_PX


def background(rng: np.random.Generator) -> Background:
    """Draw one of four styles in dark and greyish colours, so that none is taken for an object."""
    style = str(rng.choice(["gradient", "noise", "tiles", "stripes"]))
    first, second = (shade(rng.integers(20, 116, 1).repeat(3), 20, rng) for _ in range(2))
    period, grain = int(rng.integers(8, 48)), int(rng.choice([0, 4, 12]))
    return Background(style, int(rng.integers(2**31)), first, second, float(rng.uniform(0, np.pi)), period, grain)


def shade(rgb: np.ndarray, spread: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """Draw a colour at most ``spread`` grey levels from ``rgb`` in each channel."""
    red, green, blue = np.clip(rgb + rng.integers(-spread, spread + 1, 3), 0, 255)
    return int(red), int(green), int(blue)


def looks(rng: np.random.Generator, count: int, *, moving: bool) -> list[Look]:
    """Draw objects of which each has a colour and a shape of its own."""
    colors, shapes = rng.permutation(list(COLORS))[:count], rng.permutation(SHAPES)[:count]
    motions = rng.choice(list(MOTIONS), count) if moving else ["still"] * count
    return [
        (str(shape), str(color), str(motion), shade(np.array(COLORS[str(color)]), 10, rng))
        for shape, color, motion in zip(shapes, colors, motions)
    ]


def canvas(rng: np.random.Generator, room: Room) -> tuple[int, int]:
    """Draw width and height; small ones are the more frequent, being the cheaper ones."""
    low, high = room.side_px
    width, height = (int(side) // 2 * 2 for side in low + (high + 2 - low) * rng.random(2) ** 1.5)
    return width, height


def populate(
    rng: np.random.Generator, duration: float, room: Room | None = None, move_seconds: tuple[float, float] | None = None
) -> tuple[int, int, tuple[SceneObject, ...]]:
    """Return width, height and one to four objects that never leave the canvas nor meet.

    They move all the time, or within a time of ``move_seconds`` (shortest, longest) of their own.

    What the answers depend on is drawn first and stays; only the canvas and the places are drawn again when they do
    not fit, so that every answer stays as frequent as the others.
    """
    room = room or Room()
    wanted = looks(rng, int(rng.integers(1, MAX_OBJECTS + 1)), moving=duration > 0)
    while True:
        width, height = canvas(rng, room)
        placed = place_all(rng, wanted, width, height, duration, room, move_seconds)
        if placed is not None:
            return width, height, placed


def place_all(
    rng: np.random.Generator,
    wanted: Sequence[Look],
    width: int,
    height: int,
    duration: float,
    room: Room,
    move_seconds: tuple[float, float] | None = None,
) -> tuple[SceneObject, ...] | None:
    """Return the objects at free places, or None when one of them found none."""
    placed: list[SceneObject] = []
    for look in wanted:
        moving = (0.0, duration)
        if move_seconds is not None and move_seconds[1] < duration:
            length = float(rng.uniform(*move_seconds))
            first = float(rng.uniform(0, duration - length))
            moving = (first, first + length)
        item = _place(rng, look, placed, width, height, duration, room, moving)
        if item is None:
            return None
        placed.append(item)
    return tuple(placed)


def _place(
    rng: np.random.Generator,
    look: Look,
    placed: Sequence[SceneObject],
    width: int,
    height: int,
    duration: float,
    room: Room,
    moving: tuple[float, float],
) -> SceneObject | None:
    """Return the object at a free place, or None when twelve tries found none."""
    shape, color, motion, rgb = look
    right, down = MOTIONS[motion]
    length = moving[1] - moving[0]
    # As close as 25 in the longest time that anything moves.
    times = np.linspace(0, duration, max(25, round(2 * duration))) if duration else np.zeros(1)
    for _ in range(12):
        radius = float(rng.uniform(*room.radius_px))
        speed = float(rng.uniform(*SPEED_PX)) if right or down else 0.0
        travel, margin = speed * length, radius + room.edge_px
        room_x, room_y = width - 2 * margin - travel * abs(right), height - 2 * margin - travel * abs(down)
        if min(room_x, room_y) < 0:
            continue
        x = margin + rng.random() * room_x + travel * (right < 0)
        y = margin + rng.random() * room_y + travel * (down < 0)
        item = SceneObject(shape, color, motion, rgb, radius, x, y, speed, moving=moving)
        if all(_apart(item, other, times) for other in placed):
            return item
    return None


def _apart(one: SceneObject, other: SceneObject, times: np.ndarray) -> bool:
    """Tell whether the squares around two objects are ``GAP_PX`` apart, horizontally or vertically, at those times."""
    (ax, ay), (bx, by) = (_track(item, times) for item in (one, other))
    apart = np.maximum(np.abs(ax - bx), np.abs(ay - by))
    return bool((apart >= one.radius + other.radius + GAP_PX).all())


def _track(item: SceneObject, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.array([item.center(float(seconds)) for seconds in times]).T
    return x, y


def glyph(rng: np.random.Generator, character: str, width: int, height: int, scale: int, **times: float) -> Glyph:
    """Return a character at a random place of the canvas, light on a dark plate."""
    # One grey for all plates would give the character away by its surroundings.
    light, dark = (shade(np.full(3, level), 12, rng) for level in (235, 16))
    plate_x, plate_y = 7 * scale, 9 * scale
    x = EDGE_PX + plate_x / 2 + rng.random() * (width - plate_x - 2 * EDGE_PX)
    y = EDGE_PX + plate_y / 2 + rng.random() * (height - plate_y - 2 * EDGE_PX)
    return Glyph(character, float(x), float(y), scale, light, dark, **times)


def place_of(x: float, y: float, width: int, height: int) -> str | None:
    """Return the quarter of the canvas around a point, one of ``PLACES``; None near the middle lines."""
    across, along = x / width - 0.5, y / height - 0.5
    if min(abs(across), abs(along)) < UNSURE_PLACE:
        return None
    return PLACES[2 * (along > 0) + (across > 0)]
