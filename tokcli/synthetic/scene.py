"""What a scene is: a canvas, a background, and objects that move in straight lines."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Background:
    """What lies behind the objects; it never moves."""

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
class SceneObject:
    """One coloured shape; every shape fits the square of side ``2 * radius`` around its centre."""

    shape: str
    color: str
    motion: str
    rgb: tuple[int, int, int]
    """The shade of ``color`` in this scene."""
    radius: float
    x: float
    """Centre at time 0, pixels from the left edge."""
    y: float
    """Centre at time 0, pixels from the upper edge."""
    speed: float
    """Pixels a second along ``motion``; 0 if still."""

    def center(self, seconds: float) -> tuple[float, float]:
        """Return (x, y) in pixels at that time."""
        right, down = MOTIONS[self.motion]
        return self.x + right * self.speed * seconds, self.y + down * self.speed * seconds


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
    background: Background
    objects: tuple[SceneObject, ...]
    """In no order: colours differ from object to object, and so do shapes."""
    still: bool = False

    @property
    def num_frames(self) -> int:
        return 1 if self.still else round(self.duration_seconds * self.fps)
