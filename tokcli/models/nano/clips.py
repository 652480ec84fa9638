"""From a scene to what the tower takes: frames as a decoded file would give them, resized, cut in patches, labelled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from tokcli.models.nano.architecture import BOUNDS, PIXELS
from tokcli.models.preprocess import to_patches
from tokcli.models.sizing import shrink_grid, smart_resize
from tokcli.synthetic import (
    CHARACTERS,
    COLORS,
    DIGITS,
    MOTIONS,
    SHAPES,
    Scene,
    SceneObject,
    coverage,
    plate_of,
    render_times,
)

TOKEN_PX = PIXELS.patch_size * PIXELS.merge_size
LABELS = {
    "color": tuple(COLORS),
    "shape": SHAPES,
    "motion": tuple(MOTIONS),
    "character": CHARACTERS,
    "class": ("digit", "letter"),
    "size": ("smaller", "larger"),
}
"""Words for what a token shows. Where it is cannot be among them: the tower's attention knows distances only."""
UNSURE_PX = (10, 70)
"""Of a token's 784 pixels, how many an object covers (both frames' mean) for a token to be unsure, and to show it."""
MIXED = 0.5
"""A token is unsure that shows two characters, of which the second covers this share of what the first does."""
SURE_PROGRESS = 0.3
"""How near to its beginning or end a slow change of colour must be for the colour to have a name."""
SIZES_PX = (12.5, 15.5)
"""Radius for the tower up to which an object is small, and from which on it is large."""
SEEN_SPEED_PX = 5.0
"""Pixels a second from which on a motion can be seen in two frames."""


def tower_size(height: int, width: int, scale: float = 1.0) -> tuple[int, int]:
    """Return the (height, width) in pixels that a frame has for the tower; ``scale`` shrinks its number of tokens."""
    size = smart_resize(height, width, TOKEN_PX, BOUNDS.min_pixels, BOUNDS.max_pixels)
    if scale == 1.0:
        return size
    rows, columns = shrink_grid(size[0] // TOKEN_PX, size[1] // TOKEN_PX, scale)
    return rows * TOKEN_PX, columns * TOKEN_PX


def frames_of(
    scene: Scene, times: Sequence[float], rng: np.random.Generator | None, size: tuple[int, int] | None = None
) -> torch.Tensor:
    """Return the frames at ``times`` (seconds) as the tower sees them: uint8 (T, 3, h, w), T even.

    An odd last frame is repeated, as Qwen's processor does; with ``rng``, a lossy file is imitated. ``size`` is
    (height, width) for the tower, its own rule by default.
    """
    pixels = np.stack(list(render_times(scene, times)))
    frames = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    if rng is not None:
        frames = lossy(frames, rng)
    size = size or tower_size(scene.height, scene.width)
    if size != tuple(frames.shape[2:]):
        frames = F.interpolate(frames, size, mode="bicubic", antialias=True)
    if len(frames) % PIXELS.temporal_patch_size:
        frames = torch.cat([frames, frames[-1:]])
    return frames


def patches_of(frames: torch.Tensor) -> torch.Tensor:
    """Cut uint8 (T, 3, h, w) in normalised rows, float32 (T/2 * h/14 * w/14, 1176), in the order of the tower."""
    return to_patches(frames.permute(0, 2, 3, 1), PIXELS)


def change_of(frames: torch.Tensor) -> np.ndarray:
    """Return how much each token's pixels differ from the step before: float32 (T/2, rows, columns), first step inf."""
    x = frames.view(-1, 2, 3, *frames.shape[2:]).float()
    change = (x[1:] - x[:-1]).abs().mean((1, 2), keepdim=True)[:, 0]
    first = torch.full((1, *(side // TOKEN_PX for side in x.shape[3:])), math.inf)
    return torch.cat([first, *(F.avg_pool2d(step, TOKEN_PX) for step in change)]).numpy()


def lossy(frames: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return uint8 (T, 3, H, W) as a lossy file gives it back: coarse colour, rounded frequencies, noise."""
    if rng.random() < 0.2:
        return frames
    height, width = frames.shape[2:]
    x = F.pad(frames.float(), (0, -width % 16, 0, -height % 16), mode="replicate")
    planes = torch.einsum("ij,tjhw->tihw", _TO_YCC, x)
    step = float(rng.uniform(2, 16))
    luma = _round_frequencies(planes[:, :1], step)
    chroma = _round_frequencies(F.avg_pool2d(planes[:, 1:], 2), 1.5 * step)
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear" if rng.random() < 0.5 else "nearest")
    x = torch.einsum("ij,tjhw->tihw", _TO_RGB, torch.cat([luma, chroma], 1))[:, :, :height, :width]
    if rng.random() < 0.3:
        x = x + torch.from_numpy(rng.standard_normal(x.shape, np.float32)) * float(rng.uniform(0, 2.5))
    return x.round().clamp(0, 255).to(torch.uint8)


def _round_frequencies(plane: torch.Tensor, step: float) -> torch.Tensor:
    """Round the cosine transform of 8 x 8 blocks, high frequencies more coarsely, as intra coding does."""
    t, c, h, w = plane.shape
    blocks = plane.view(t, c, h // 8, 8, w // 8, 8).permute(0, 1, 2, 4, 3, 5)
    steps = step * _COARSENESS
    blocks = _DCT.T @ (((_DCT @ blocks @ _DCT.T) / steps).round() * steps) @ _DCT
    return blocks.permute(0, 1, 2, 4, 3, 5).reshape(t, c, h, w)


_TO_YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_TO_RGB = torch.linalg.inv(_TO_YCC)
_FREQUENCY = torch.arange(8.0)
_DCT = torch.cos(math.pi / 8 * (_FREQUENCY[None] + 0.5) * _FREQUENCY[:, None]) / 2
_DCT[0] /= math.sqrt(2)
_COARSENESS = 1 + (_FREQUENCY[None] + _FREQUENCY[:, None]) / 3


def dense_labels(
    scene: Scene, times: tuple[float, float], size: tuple[int, int] | None = None
) -> dict[str, np.ndarray]:
    """Return what each token of one step shows: int64 (rows * columns,) by kind.

    0 for nothing, -1 for unsure, otherwise 1 + the index in ``LABELS``. A motion is unsure where the two frames are
    one, where the object is seen in one of them only, and where it is too slow; a colour on its way to another, too.
    """
    height, width = size or tower_size(scene.height, scene.width)
    cells = _Cells(scene, height // TOKEN_PX, width // TOKEN_PX)
    items = scene.objects
    covered = np.zeros((len(items) + 1, cells.rows * cells.columns))
    seen = np.zeros(len(items), int)
    for seconds in times:
        for shot, share in scene.shot_at(seconds):
            for item in shot.objects:
                index = items.index(item)
                seen[index] += 1
                rows, columns, alpha = coverage(scene, item, seconds)
                covered[index] += cells.add(rows, columns, alpha * share) / len(times)
    shown, most = covered.argmax(0), covered.max(0)
    labels = {}
    scale = math.sqrt(height * width / (scene.height * scene.width))
    for kind in ("color", "shape", "motion", "size"):
        of_object = np.array([_label(kind, item, times, seen[i], scale) for i, item in enumerate(items)] + [0])
        labels[kind] = np.where(most >= UNSURE_PX[1], of_object[shown], np.where(most > UNSURE_PX[0], -1, 0))
    characters = _character_labels(scene, times, cells)
    labels["character"] = characters
    labels["class"] = np.where(characters > 0, 1 + (characters > len(DIGITS)), characters)
    return labels


def _label(kind: str, item: SceneObject, times: tuple[float, float], frames_seen: int, scale: float) -> int:
    middle = sum(times) / 2
    if kind == "size":
        radius = item.radius_at(middle) * scale
        return 1 if radius < SIZES_PX[0] else 2 if radius > SIZES_PX[1] else -1
    name = getattr(item, kind)
    if kind == "motion":
        seen = item.motion_between(*times)
        if times[0] == times[1] or frames_seen < len(times) or 0 < item.speed < SEEN_SPEED_PX or seen is None:
            return -1
        name = seen
    if kind == "color" and item.end_color:
        progress = item.progress(middle)
        if SURE_PROGRESS < progress < 1 - SURE_PROGRESS:
            return -1
        name = item.color if progress < 0.5 else item.end_color
    return 1 + LABELS[kind].index(name)


def _character_labels(scene: Scene, times: tuple[float, float], cells: _Cells) -> np.ndarray:
    covered = np.zeros((len(CHARACTERS) + 1, cells.rows * cells.columns))
    for seconds in times:
        for glyph in scene.glyphs:
            if glyph.shown(seconds):
                rows, columns = plate_of(glyph)
                whole = np.ones((rows.stop - rows.start, columns.stop - columns.start))
                covered[1 + CHARACTERS.index(glyph.character)] += cells.add(rows, columns, whole) / len(times)
    second, most = np.sort(covered, 0)[-2:]
    unsure = (most < 2 * UNSURE_PX[1]) | (second > MIXED * most)
    return np.where(most <= UNSURE_PX[0], 0, np.where(unsure, -1, covered.argmax(0)))


class _Cells:
    """The tokens' cells of a scene's canvas."""

    def __init__(self, scene: Scene, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self._row_of = (np.arange(scene.height) * rows) // scene.height
        self._column_of = (np.arange(scene.width) * columns) // scene.width
        self._px = TOKEN_PX * TOKEN_PX * rows * columns / (scene.height * scene.width)

    def add(self, rows: slice, columns: slice, share: np.ndarray) -> np.ndarray:
        """Return how many of each token's 784 pixels are covered, given the share of each pixel: (tokens,)."""
        covered = np.zeros((self.rows, self.columns))
        np.add.at(covered, (self._row_of[rows, None], self._column_of[None, columns]), share)
        return covered.reshape(-1) * self._px
