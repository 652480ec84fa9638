"""What a scene is: a canvas, shots that follow one another, a camera, and objects and characters in the picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

COLORS: Mapping[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 185, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 218, 50),
    "purple": (160, 60, 200),
    "white": (242, 242, 242),
}
"""Names of the objects' colours, and the RGB value that each scene varies a little."""

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "cross", "ring")

MOTIONS: Mapping[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "still": (0, 0),
}
"""Answers to motion questions, and the direction (x, y) of each on the canvas, y downwards."""

PLACES: tuple[str, ...] = ("top left", "top right", "bottom left", "bottom right")
"""The quarters of the canvas."""

THIRDS: tuple[str, ...] = ("beginning", "middle", "end")
"""The thirds of a clip."""


@dataclass(frozen=True)
class Background:
    """What lies behind the objects of a shot; only the camera moves it."""

    style: str
    """``gradient``, ``noise``, ``tiles`` or ``stripes``."""
    seed: int
    first: tuple[int, int, int]
    """RGB of one end, tile or stripe."""
    second: tuple[int, int, int]
    """RGB of the other."""
    angle: float
    """Direction of gradient and stripes, radians."""
    period_px: int
    """Side of a tile, or distance between stripes."""
    grain: int
    """Amplitude of the fixed per-pixel noise, grey levels."""


@dataclass(frozen=True)
class Camera:
    """How the picture moves as a whole; at rest by default."""

    pan: tuple[float, float] = (0.0, 0.0)
    """(x, y) pixels a second by which the background passes behind the objects, which the camera follows."""
    shake_px: float = 0.0
    """How far the whole picture trembles to each side."""
    noise: int = 0
    """Amplitude of noise that is new in every frame, grey levels."""


@dataclass(frozen=True)
class SceneObject:
    """One coloured shape; every shape fits the square of side ``2 * radius`` around its centre."""

    shape: str
    color: str
    motion: str
    rgb: tuple[int, int, int]
    """The shade of ``color`` in this scene."""
    radius: float
    x: float
    """Centre when it appears, pixels from the left edge."""
    y: float
    """Centre when it appears, pixels from the upper edge."""
    speed: float
    """Pixels a second along ``motion``; 0 if still."""
    start: float = 0.0
    """Seconds at which it appears."""
    stop: float = math.inf
    """Seconds at which it is gone."""
    end_color: str = ""
    """What ``color`` has become at ``stop``, slowly; "" for one that stays."""
    end_rgb: tuple[int, int, int] | None = None
    end_radius: float | None = None
    """What ``radius`` has become at ``stop``, slowly; None for one that stays."""
    moving: tuple[float, float] = (0.0, math.inf)
    """Seconds from and until which it moves; before and after it stands where it is."""

    def center(self, seconds: float) -> tuple[float, float]:
        """Return (x, y) in pixels at that time."""
        right, down = MOTIONS[self.motion]
        first, last = self.moving
        gone = self.speed * (min(max(seconds, first), last) - first)
        return self.x + right * gone, self.y + down * gone

    def motion_between(self, first: float, last: float) -> str | None:
        """Return what two moments (seconds) show of the motion; None where it is seen for a part of the time only."""
        if not self.speed:
            return self.motion
        share = (min(last, self.moving[1]) - max(first, self.moving[0])) / max(last - first, 1e-9)
        return self.motion if share >= 0.7 else "still" if share <= 0 else None

    def progress(self, seconds: float) -> float:
        """Return how far a slow change has come at that time, 0 to 1."""
        return min(1.0, max(0.0, (seconds - self.start) / (self.stop - self.start)))

    def radius_at(self, seconds: float) -> float:
        if self.end_radius is None:
            return self.radius
        return self.radius + (self.end_radius - self.radius) * self.progress(seconds)

    def rgb_at(self, seconds: float) -> tuple[float, ...]:
        if self.end_rgb is None:
            return self.rgb
        share = self.progress(seconds)
        return tuple(one + (other - one) * share for one, other in zip(self.rgb, self.end_rgb))


@dataclass(frozen=True)
class Glyph:
    """A letter or digit on a dark plate."""

    character: str
    x: float
    """Centre of the plate, pixels from the left edge."""
    y: float
    scale: int
    """Pixels along the side of a dot; a plate is 7 dots wide and 9 high."""
    rgb: tuple[int, int, int]
    plate: tuple[int, int, int]
    start: float = 0.0
    stop: float = math.inf

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the plate in pixels."""
        return 7 * self.scale, 9 * self.scale

    def shown(self, seconds: float) -> bool:
        return self.start <= seconds < self.stop


@dataclass(frozen=True)
class Shot:
    """What is seen between two changes of scene."""

    start: float
    """Seconds; the first shot starts at 0."""
    background: Background
    objects: tuple[SceneObject, ...]
    """In no order: colours differ from object to object, and so do shapes."""


@dataclass(frozen=True)
class Scene:
    """Everything that a clip or a still shows; ``make_scene(kind, seed)`` gives the same one every time."""

    kind: str
    seed: int
    width: int
    """Pixels, even: most encoders store colour at half the resolution."""
    height: int
    fps: float
    """Frames per second of the clip; 1 for a still."""
    duration_seconds: float
    """Number of frames over ``fps``; 0 for a still."""
    shots: tuple[Shot, ...]
    glyphs: tuple[Glyph, ...] = ()
    camera: Camera = Camera()
    fade_seconds: float = 0.0
    """How long one shot takes to turn into the next; 0 for a cut."""
    still: bool = False

    @property
    def num_frames(self) -> int:
        return 1 if self.still else round(self.duration_seconds * self.fps)

    @property
    def objects(self) -> tuple[SceneObject, ...]:
        """The objects of all shots, in their order."""
        return tuple(item for shot in self.shots for item in shot.objects)

    def shot_at(self, seconds: float) -> list[tuple[Shot, float]]:
        """Return the shots that are seen at that time with their shares of the picture: one, or two in a fade."""
        share = [self._arrived(shot, seconds) for shot in self.shots] + [0.0]
        seen = [(shot, share[i] * (1 - share[i + 1])) for i, shot in enumerate(self.shots)]
        return [(shot, part) for shot, part in seen if part > 0]

    def _arrived(self, shot: Shot, seconds: float) -> float:
        if shot.start == 0:
            return 1.0
        if not self.fade_seconds:
            return float(seconds >= shot.start)
        return min(1.0, max(0.0, (seconds - shot.start) / self.fade_seconds + 0.5))
