"""Kinds of scene about time: slow drift, a flash in a long clip, text, and a counter."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from tokcli.synthetic.glyphs import CHARACTERS, DIGITS, LETTERS
from tokcli.synthetic.kinds import clip_kind, draw_times
from tokcli.synthetic.placement import EDGE_PX, Room, background, canvas, glyph, looks, place_all, shade
from tokcli.synthetic.scene import COLORS, THIRDS, Scene, SceneObject, Shot

FLASH_SECONDS = 0.3
THIRD_SHARES = {"beginning": (0.03, 0.28), "middle": (0.38, 0.62), "end": (0.72, 0.97)}
"""Where in a clip something happens whose third is asked for: clear of the borders between them."""
DRIFTS = ("place", "color", "size", "none")
LONG = Room(side_px=(112, 140), radius_px=(10.0, 18.0))
"""Long clips have small canvases, or they would cost as much as all others together."""


@clip_kind("drift")
def drift(rng: np.random.Generator, kind: str, seed: int) -> Scene:
    """One object changes its place, colour or size so slowly that no two frames differ much; in a quarter, nothing."""
    change = str(rng.choice(DRIFTS))
    fps, duration = draw_times(rng, 15, 45)
    shape, color, _, rgb = looks(rng, 1, moving=False)[0]
    width, height = canvas(rng, LONG)
    radius = float(rng.uniform(10, 18))
    x, y = _in_a_quarter(rng, radius, width, height)
    item = SceneObject(shape, color, "still", rgb, radius, x, y, 0.0, stop=duration)
    if change == "place":
        item = _to_next_quarter(rng, item, width, height, duration)
    elif change == "color":
        end = str(rng.choice([name for name in COLORS if name != color]))
        item = replace(item, end_color=end, end_rgb=shade(np.array(COLORS[end]), 10, rng))
    elif change == "size":
        sizes = float(rng.uniform(9, 11)), float(rng.uniform(17, 20))
        first, last = sizes if rng.random() < 0.5 else sizes[::-1]
        x, y = _in_a_quarter(rng, 20, width, height)
        item = replace(item, radius=first, end_radius=last, x=x, y=y)
    return Scene(kind, seed, width, height, fps, duration, (Shot(0.0, background(rng), (item,)),))


def _in_a_quarter(rng: np.random.Generator, radius: float, width: int, height: int) -> tuple[float, float]:
    """Draw a place around which the object fits, and whose quarter is clear."""
    x, y = (float(rng.uniform(radius + EDGE_PX, 0.4 * side)) for side in (width, height))
    return width - x if rng.random() < 0.5 else x, height - y if rng.random() < 0.5 else y


def _to_next_quarter(
    rng: np.random.Generator, item: SceneObject, width: int, height: int, duration: float
) -> SceneObject:
    """Return the object on its way to the quarter beside or below it, where it arrives at the end."""
    if rng.random() < 0.5:
        return replace(item, motion="right" if item.x < width / 2 else "left", speed=abs(width - 2 * item.x) / duration)
    return replace(item, motion="down" if item.y < height / 2 else "up", speed=abs(height - 2 * item.y) / duration)


@clip_kind("needle")
def needle(rng: np.random.Generator, kind: str, seed: int) -> Scene:
    """A digit or letter for 0.3 seconds in a clip of 12 to 120, over objects that stand still.

    A whole second falls into the flash, so that sampling at one frame a second sees it: the kind tests what a
    compression loses, not what the sampling does.
    """
    character = str(rng.choice(DIGITS if rng.random() < 0.5 else LETTERS))
    third = str(rng.choice(THIRDS))
    fps = float(rng.integers(8, 13))
    duration = round(12 * 10 ** rng.random() * fps) / fps
    wanted = looks(rng, int(rng.integers(1, 3)), moving=False)
    placed = None
    while placed is None:
        width, height = canvas(rng, LONG)
        placed = place_all(rng, wanted, width, height, 0.0, LONG)
    low, high = (share * duration for share in THIRD_SHARES[third])
    second = int(rng.integers(math.ceil(low), math.floor(high) + 1))
    frames = round(FLASH_SECONDS * fps)
    first = round(second * fps) - int(rng.integers(0, frames))
    flash = glyph(rng, character, width, height, 4, start=first / fps, stop=(first + frames) / fps)
    shots = (Shot(0.0, background(rng), placed),)
    return Scene(kind, seed, width, height, fps, duration, shots, (flash,))


@clip_kind("text")
def text(rng: np.random.Generator, kind: str, seed: int) -> Scene:
    """A digit and a letter at places of their own, or a code of two characters side by side; a third are stills."""
    code = rng.random() < 0.4
    pair = rng.choice(CHARACTERS, 2) if code else [rng.choice(DIGITS), rng.choice(LETTERS)]
    first, second = (str(character) for character in pair)
    still = rng.random() < 1 / 3
    fps, duration = (1.0, 0.0) if still else draw_times(rng, 4, 12)
    width, height = canvas(rng, Room(side_px=(112, 196)))
    scale = int(rng.integers(3, 5))
    while True:
        one = glyph(rng, first, width, height, scale)
        other = glyph(rng, second, width, height, scale)
        if code:
            other = replace(other, x=one.x + one.size[0], y=one.y, rgb=one.rgb, plate=one.plate)
            if other.x + one.size[0] / 2 + EDGE_PX <= width:
                break
        elif abs(one.x - other.x) > one.size[0] + 4 or abs(one.y - other.y) > one.size[1] + 4:
            break
    shots = (Shot(0.0, background(rng), ()),)
    return Scene(kind, seed, width, height, fps, duration, shots, (one, other), still=still)


@clip_kind("counter")
def counter(rng: np.random.Generator, kind: str, seed: int) -> Scene:
    """A digit that counts up or down, three to six values of 2 to 6 seconds each; 0 comes after 9."""
    values, step = int(rng.integers(3, 7)), int(rng.choice([-1, 1]))
    first = int(rng.integers(10))
    fps = float(rng.integers(8, 13))
    hold = round(rng.uniform(2, 6) * fps) / fps
    wanted = looks(rng, int(rng.integers(0, 2)), moving=False)
    placed = None
    while placed is None:
        width, height = canvas(rng, LONG)
        placed = place_all(rng, wanted, width, height, 0.0, LONG)
    plate = glyph(rng, "0", width, height, 4)
    glyphs = tuple(
        replace(plate, character=str((first + step * i) % 10), start=i * hold, stop=(i + 1) * hold)
        for i in range(values)
    )
    shots = (Shot(0.0, background(rng), placed),)
    return Scene(kind, seed, width, height, fps, values * hold, shots, glyphs)
