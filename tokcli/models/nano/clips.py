"""From a scene to what the tower takes: frames as a decoded file would give them, resized, cut in patches, labelled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from tokcli.models.nano.architecture import PIXELS
from tokcli.models.preprocess import to_patches
from tokcli.models.sizing import smart_resize
from tokcli.synthetic import COLORS, MOTIONS, SHAPES, Scene, coverage, render_times

TOKEN_PX = PIXELS.patch_size * PIXELS.merge_size
LABELS = {"color": tuple(COLORS), "shape": SHAPES, "motion": tuple(MOTIONS)}
UNSURE_PX = (10, 70)
"""Of a token's 784 pixels, how many an object covers (both frames' mean) for a token to be unsure, and to show it."""


def tower_size(height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) in pixels that a frame has for the tower."""
    return smart_resize(height, width, TOKEN_PX, PIXELS.bounds.min_pixels, PIXELS.bounds.max_pixels)


def frames_of(scene: Scene, times: Sequence[float], rng: np.random.Generator | None) -> torch.Tensor:
    """Return the frames at ``times`` (seconds) as the tower sees them: uint8 (T, 3, h, w), T even.

    An odd last frame is repeated, as Qwen's processor does; with ``rng``, a lossy file is imitated.
    """
    pixels = np.stack(list(render_times(scene, times)))
    frames = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    if rng is not None:
        frames = lossy(frames, rng)
    size = tower_size(scene.height, scene.width)
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


def dense_labels(scene: Scene, times: tuple[float, float]) -> dict[str, np.ndarray]:
    """Return what each token of one step shows: int64 (rows * columns,) by kind.

    0 for nothing, -1 for unsure, otherwise 1 + the index in ``LABELS``. Motion is unsure where the two frames are one.
    """
    height, width = tower_size(scene.height, scene.width)
    rows, columns = height // TOKEN_PX, width // TOKEN_PX
    covered = np.zeros((len(scene.objects), rows, columns))
    row_of = (np.arange(scene.height) * rows) // scene.height
    column_of = (np.arange(scene.width) * columns) // scene.width
    for index, item in enumerate(scene.objects):
        for seconds in times:
            y, x, alpha = coverage(scene, item, seconds)
            np.add.at(covered[index], (row_of[y, None], column_of[None, x]), alpha)
    covered *= height * width / (scene.height * scene.width * len(times))
    shown, most = covered.argmax(0).reshape(-1), covered.max(0).reshape(-1)
    labels = {}
    for kind, names in LABELS.items():
        of_object = np.array([1 + names.index(getattr(item, kind)) for item in scene.objects])
        label = np.where(most >= UNSURE_PX[1], of_object[shown], np.where(most > UNSURE_PX[0], -1, 0))
        labels[kind] = label
    if times[0] == times[1]:
        labels["motion"] = np.where(labels["motion"] > 0, -1, labels["motion"])
    return labels
