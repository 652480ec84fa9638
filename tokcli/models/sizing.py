"""How large a frame is given to the vision tower: pure arithmetic, so that decoding processes can do it too.

Towers that take any size get Qwen2-VL's ``smart_resize`` as transformers applies it (``PixelBounds``): sides are
multiples of ``patch_size * merge_size``, the aspect ratio is kept as well as that allows, and the area of ONE frame
stays between two bounds; Qwen3-VL's bounds are for the whole clip (``ClipBounds``). Towers with learned positions get
one size for every frame (``FixedSize``, ``FixedGrid``), and stills as they are where these are cut into tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokcli.errors import MediaError
from tokcli.models.tiles import Tiling, fit_longest
from tokcli.types import MediaInfo

MAX_ASPECT_RATIO = 200
MIN_FRAMES = 2
"""A clip of one frame counts as two: its step is filled with the frame itself."""
# Of the context that `max_video_tokens` assumes, qwen-vl-utils leaves a tenth to the text.
_VIDEO_SHARE_OF_CONTEXT = 0.9


@dataclass(frozen=True)
class PixelBounds:
    """Area limits of one frame, and how they shrink on long clips."""

    min_pixels: int
    max_pixels: int
    cap_pixels_per_frame: bool = False
    """Share a budget for the whole clip evenly over its frames, on top of ``max_pixels`` (qwen-vl-utils' rule)."""
    max_video_tokens: int = 128_000
    """Context length that the clip's budget is derived from; read only with ``cap_pixels_per_frame``."""


@dataclass(frozen=True)
class ClipBounds:
    """Limits of the pixels of all frames together (Qwen3-VL)."""

    min_pixels: int
    max_pixels: int
    cap_pixels_per_frame: bool = False
    """Let no frame have more than ``max_video_tokens`` (qwen-vl-utils' rule)."""
    max_video_tokens: int = 768
    """Tokens of one frame; read only with ``cap_pixels_per_frame``."""

    def resized(self, num_frames: int, height: int, width: int, factor: int) -> tuple[int, int]:
        """(height, width) of each of ``num_frames`` frames, multiples of ``factor``.

        Raises:
            MediaError: One side is more than 200 times the other.
        """
        frames = max(num_frames, MIN_FRAMES)
        limit = self.max_pixels
        if self.cap_pixels_per_frame:
            own = min(self.max_video_tokens * factor * factor, limit // frames)
            limit = max(own, int(self.min_pixels * 1.05)) * frames
        if min(height, width) < factor:
            grow = max(factor / height, factor / width)
            height, width = int(height * grow), int(width * grow)
        _check_aspect(height, width)
        rows, columns = round(height / factor) * factor, round(width / factor) * factor
        pixels = round(frames / MIN_FRAMES) * MIN_FRAMES * rows * columns
        if pixels > limit:
            shrink = math.sqrt(frames * height * width / limit)
            rows = max(factor, math.floor(height / shrink / factor) * factor)
            columns = max(factor, math.floor(width / shrink / factor) * factor)
        elif pixels < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (frames * height * width))
            rows = math.ceil(height * grow / factor) * factor
            columns = math.ceil(width * grow / factor) * factor
        return rows, columns


@dataclass(frozen=True)
class FixedGrid:
    """One size for every frame whatever its shape, and as many tokens of each as the family makes of it."""

    height: int
    width: int
    rows: int
    columns: int


@dataclass(frozen=True)
class FittedGrid(FixedGrid):
    """The same in two steps: frames come with their own shape, and the tower's adapter squeezes them to the size."""

    longest_edge: int
    """Pixels of a frame's longer side when it comes."""


@dataclass(frozen=True)
class FixedSize:
    """One size for every frame, as CLIP's image processor makes it."""

    height: int
    width: int
    shortest_edge: int | None = None
    """Pixels to which the shorter side is resized, before ``height`` x ``width`` are cut out of the middle; None
    resizes to exactly that, whatever the frame's own shape."""

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a frame of that size after resizing, before anything is cut off.

        Raises:
            MediaError: One side is more than 200 times the other.
        """
        if self.shortest_edge is None:
            return self.height, self.width
        _check_aspect(height, width)
        longest = int(self.shortest_edge * max(height, width) / min(height, width))
        return (longest, self.shortest_edge) if width <= height else (self.shortest_edge, longest)


def _check_aspect(height: int, width: int) -> None:
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise MediaError(
            f"frames of {width}x{height} pixels are too narrow: the aspect ratio may be at most {MAX_ASPECT_RATIO}"
        )


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Size nearest to (height, width) whose sides are multiples of ``factor`` and whose area is within the bounds.

    Raises:
        MediaError: One side is more than 200 times the other.
    """
    _check_aspect(height, width)
    rows, columns = round(height / factor) * factor, round(width / factor) * factor
    if rows * columns > max_pixels:
        shrink = math.sqrt((height * width) / max_pixels)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
    elif rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / factor) * factor
        columns = math.ceil(width * grow / factor) * factor
    return rows, columns


def shrink_grid(rows: int, columns: int, share: float) -> tuple[int, int]:
    """Grid of about the same shape with at most ``share`` of the cells, and at least one.

    >>> shrink_grid(10, 18, 0.25)
    (5, 9)
    """
    budget = max(1, math.floor(share * rows * columns + 1e-9))
    height = max(1, round(rows * math.sqrt(share)))
    width = max(1, min(columns, budget // height))
    return min(height, budget // width), width


Bounds = PixelBounds | ClipBounds | FixedSize | FixedGrid | Tiling


@dataclass(frozen=True)
class Sizer:
    """Sizes of what the tower is given and of what it gives back, for one checkpoint. Picklable."""

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    image: Bounds
    video: Bounds
    resample: str = "bicubic"
    """Kernel that :func:`tokcli.models.preprocess.resize_frames` is to use."""

    @property
    def factor(self) -> int:
        """Pixels along the side of one token."""
        return self.patch_size * self.merge_size

    @property
    def scalable(self) -> bool:
        """Whether frames may be given to the tower smaller than it takes them by itself."""
        return not any(isinstance(bounds, (FixedGrid, Tiling)) for bounds in (self.image, self.video))

    def __call__(self, info: MediaInfo, scale: float = 1.0) -> tuple[int, int]:
        """(height, width) in pixels that frames of ``info`` must have for the tower.

        ``scale`` in (0, 1] is the share of the full size's tokens to aim at: never more than that, at least one token.

        Raises:
            MediaError: The frames are too narrow for the tower.
        """
        if not 0 < scale <= 1 or (scale < 1 and not self.scalable):
            raise ValueError(f"scale must be in (0, 1], and 1 for towers of one size, got {scale}")
        height, width = self._full(info)
        if scale == 1.0:
            return height, width
        region = self.region(info, (height, width))
        rows, columns = shrink_grid(region[0] // self.factor, region[1] // self.factor, scale)
        # Where the tower sees the middle of a frame only, it is that part which shrinks to the smaller grid.
        return (
            round(height * rows * self.factor / region[0]),
            round(width * columns * self.factor / region[1]),
        )

    def region(self, info: MediaInfo, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in pixels of what the tower is given: the middle of frames of ``size``, mostly all of them.

        ``size`` is what the sizer gave for ``info``, at any scale.
        """
        bounds = self._bounds(info)
        if not isinstance(bounds, FixedSize) or bounds.shortest_edge is None:
            return size
        full = bounds.resized(info.height, info.width)
        rows, columns = (
            round(side * cut / whole / self.factor)
            for side, cut, whole in zip(size, (bounds.height, bounds.width), full)
        )
        return rows * self.factor, columns * self.factor

    def grid(self, info: MediaInfo, size: tuple[int, int]) -> tuple[int, int, int]:
        """(T', H', W') tokens of the item when its frames have ``size`` pixels."""
        steps = 1 if info.kind == "image" else -(-info.num_frames // self.temporal_patch_size)
        bounds = self._bounds(info)
        if isinstance(bounds, FixedGrid):
            return steps, bounds.rows, bounds.columns
        height, width = self.region(info, size)
        return steps, height // self.factor, width // self.factor

    def fits(self, info: MediaInfo, size: tuple[int, int]) -> bool:
        """Whether frames of ``size`` pixels can be cut into the patches that the tower takes."""
        if isinstance(self._bounds(info), Tiling):
            return size == (info.height, info.width)
        height, width = self.region(info, size)
        square = 1 if isinstance(self._bounds(info), FixedGrid) else self.factor
        return min(height, width) >= 1 and height % square == width % square == 0

    def patches_per_step(self, info: MediaInfo, size: tuple[int, int]) -> int:
        """Patches that one temporal step of frames of ``size`` pixels costs the tower."""
        bounds = self._bounds(info)
        height, width = (bounds.height, bounds.width) if isinstance(bounds, FixedGrid) else self.region(info, size)
        return (height // self.patch_size) * (width // self.patch_size)

    def _bounds(self, info: MediaInfo) -> Bounds:
        return self.image if info.kind == "image" else self.video

    def _full(self, info: MediaInfo) -> tuple[int, int]:
        bounds = self._bounds(info)
        if isinstance(bounds, Tiling):
            return info.height, info.width
        if isinstance(bounds, FittedGrid):
            return fit_longest(info.height, info.width, bounds.longest_edge)
        if isinstance(bounds, FixedGrid):
            return bounds.height, bounds.width
        if isinstance(bounds, FixedSize):
            return bounds.resized(info.height, info.width)
        if isinstance(bounds, ClipBounds):
            return bounds.resized(info.num_frames, info.height, info.width, self.factor)
        limit = self._max_pixels(bounds, info.num_frames)
        return smart_resize(info.height, info.width, self.factor, bounds.min_pixels, limit)

    def _max_pixels(self, bounds: PixelBounds, num_frames: int) -> int:
        if not bounds.cap_pixels_per_frame:
            return bounds.max_pixels
        clip = int(bounds.max_video_tokens * self.factor * self.factor * _VIDEO_SHARE_OF_CONTEXT)
        share = clip * self.temporal_patch_size // num_frames
        return max(min(bounds.max_pixels, share), int(bounds.min_pixels * 1.05))
