"""The kinds of scene: each a function that makes one from a seed, registered by name."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from tokcli.errors import UsageError, nearest
from tokcli.synthetic.placement import Room, background, populate
from tokcli.synthetic.scene import Camera, Scene, Shot

Maker = Callable[[np.random.Generator, str, int], Scene]
"""Makes a scene from a generator; kind and seed are to be noted in it."""

_KINDS: dict[str, Maker] = {}


def scene_kinds() -> tuple[str, ...]:
    """Return the names that ``make_scene`` takes."""
    return tuple(_KINDS)


def make_scene(kind: str, seed: int) -> Scene:
    """Return the scene of that kind and seed, always the same one; ``UsageError`` for an unknown kind."""
    if kind not in _KINDS:
        raise UsageError(f"unknown kind of scene {kind!r}; known kinds: {', '.join(_KINDS)}{nearest(kind, _KINDS)}")
    return _KINDS[kind](np.random.default_rng((zlib.crc32(kind.encode()), seed)), kind, seed)


def clip_kind(name: str) -> Callable[[Maker], Maker]:
    """Register the function under it as a kind of scene."""

    def register(make: Maker) -> Maker:
        _KINDS[name] = make
        return make

    return register


def draw_times(rng: np.random.Generator, low: float, high: float) -> tuple[float, float]:
    """Draw a frame rate of 8 to 12, and a duration in seconds that is a whole number of frames."""
    fps = float(rng.integers(8, 13))
    return fps, round(rng.uniform(low, high) * fps) / fps


@clip_kind("static")
def static(rng: np.random.Generator, kind: str, seed: int) -> Scene:
    """A camera that stands still for 8 to 48 seconds; each object moves one way for 4 to 8 of them, or not at all."""
    fps, duration = draw_times(rng, 8, 48)
    width, height, objects = populate(rng, duration, Room(side_px=(112, 168)), move_seconds=(4, 8))
    return Scene(kind, seed, width, height, fps, duration, (Shot(0.0, background(rng), objects),))


@clip_kind("short")
def short(rng: np.random.Generator, kind: str, seed: int) -> Scene:
    """A camera that stands still for 4 to 12 seconds; each object moves one way all the time, or not at all."""
    return _one_shot(rng, kind, seed)


@clip_kind("still")
def still(rng: np.random.Generator, kind: str, seed: int) -> Scene:
    """A picture."""
    width, height, objects = populate(rng, 0)
    return Scene(kind, seed, width, height, 1.0, 0.0, (Shot(0.0, background(rng), objects),), still=True)


@clip_kind("pan")
def pan(rng: np.random.Generator, kind: str, seed: int) -> Scene:
    """The background passes by at 6 to 20 pixels a second: no token stays what it was, though nothing happens."""
    speed, angle = rng.uniform(6, 20), rng.uniform(0, 2 * np.pi)
    return _one_shot(rng, kind, seed, camera=Camera(pan=(float(speed * np.cos(angle)), float(speed * np.sin(angle)))))


@clip_kind("shake")
def shake(rng: np.random.Generator, kind: str, seed: int) -> Scene:
    """A camera in the hand: the whole picture trembles by up to 4 pixels."""
    camera = Camera(shake_px=float(rng.uniform(2, 4)))
    return _one_shot(rng, kind, seed, Room(edge_px=6), camera)


@clip_kind("noisy")
def noisy(rng: np.random.Generator, kind: str, seed: int) -> Scene:
    """A camera that stands still in bad light: noise that is new in every frame."""
    return _one_shot(rng, kind, seed, camera=Camera(noise=int(rng.integers(6, 17))))


@clip_kind("small")
def small(rng: np.random.Generator, kind: str, seed: int) -> Scene:
    """Objects of 7 to 9 pixels radius on large canvases: each in a token or two."""
    return _one_shot(rng, kind, seed, Room(side_px=(160, 224), radius_px=(7.0, 9.0)))


def _one_shot(
    rng: np.random.Generator, kind: str, seed: int, room: Room | None = None, camera: Camera | None = None
) -> Scene:
    fps, duration = draw_times(rng, 4, 12)
    width, height, objects = populate(rng, duration, room)
    shots = (Shot(0.0, background(rng), objects),)
    return Scene(kind, seed, width, height, fps, duration, shots, camera=camera or Camera())
