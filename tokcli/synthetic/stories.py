"""Kinds of scene with several shots: cuts, fades, and shots that come back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tokcli.synthetic.kinds import clip_kind
from tokcli.synthetic.placement import Look, Room, background, canvas, looks, place_all
from tokcli.synthetic.scene import Scene, SceneObject, Shot

MAX_SHOTS = 4
ROOM = Room(side_px=(112, 196), radius_px=(12.0, 24.0))
NEAR_PX = 3.0
"""How far an object has moved, to each side, when its shot comes back."""


@clip_kind("cut")
def cut(rng: np.random.Generator, kind: str, seed: int) -> Scene:
    """One to four shots of one object each, from one to the next without a transition."""
    count = int(rng.integers(1, MAX_SHOTS + 1))
    return _shots(rng, kind, seed, range(count), (2.5, 5.5) if count > 1 else (4, 12))


@clip_kind("fade")
def fade(rng: np.random.Generator, kind: str, seed: int) -> Scene:
    """One to four shots of one object each, that turn into one another in 0.8 to 1.5 seconds."""
    count = int(rng.integers(1, MAX_SHOTS + 1))
    return _shots(rng, kind, seed, range(count), (3.5, 6) if count > 1 else (4, 12), float(rng.uniform(0.8, 1.5)))


@clip_kind("return")
def comes_back(rng: np.random.Generator, kind: str, seed: int) -> Scene:
    """Three shots, of which the last is new or, in half of the clips, nearly the first again."""
    return _shots(rng, kind, seed, (0, 1, 2) if rng.random() < 0.5 else (0, 1, 0), (3, 6))


def _shots(
    rng: np.random.Generator,
    kind: str,
    seed: int,
    order: Sequence[int],
    seconds: tuple[float, float],
    fade_seconds: float = 0.0,
) -> Scene:
    """Return a scene with a shot for each number in ``order``; equal numbers are nearly equal shots."""
    fps = float(rng.integers(8, 13))
    lengths = [round(rng.uniform(*seconds) * fps) / fps for _ in order]
    starts = [float(start) for start in np.cumsum([0.0, *lengths])]
    wanted = looks(rng, max(order) + 1, moving=False)
    width, height = canvas(rng, ROOM)
    backgrounds = [background(rng) for _ in wanted]
    objects = [_alone(rng, look, width, height) for look in wanted]
    shots: list[Shot] = []
    for number, start, stop in zip(order, starts, starts[1:]):
        item = replace(objects[number], start=start, stop=stop)
        if any(shot.background is backgrounds[number] for shot in shots):
            item = _nearly(rng, item, width, height)
        shots.append(Shot(start, backgrounds[number], (item,)))
    return Scene(kind, seed, width, height, fps, starts[-1], tuple(shots), fade_seconds=fade_seconds)


def _alone(rng: np.random.Generator, look: Look, width: int, height: int) -> SceneObject:
    while (placed := place_all(rng, [look], width, height, 0.0, ROOM)) is None:
        pass
    return placed[0]


def _nearly(rng: np.random.Generator, item: SceneObject, width: int, height: int) -> SceneObject:
    margin = item.radius + ROOM.edge_px
    x, y = (float(place + rng.uniform(-NEAR_PX, NEAR_PX)) for place in (item.x, item.y))
    return replace(item, x=min(max(x, margin), width - margin), y=min(max(y, margin), height - margin))
