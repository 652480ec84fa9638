"""Clips that the finished tower has seen once, as ``nano`` keeps them; frames are those of ``--num-frames``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import LlavaForConditionalGeneration

from tokcli.models.nano.bank import SeenClip
from tokcli.models.nano.clips import frames_of
from tokcli.models.nano.curriculum import Mix
from tokcli.models.nano_clip.architecture import FRAME, PIXELS
from tokcli.models.preprocess import to_planes
from tokcli.synthetic import Scene

MAX_FRAMES = 8
FULL_SHARE = 0.6
"""Of the clips, that are given in ``MAX_FRAMES`` frames; the others in fewer."""
SURE_OF_FLASH = 0.7
"""Share of the clips with something short that are given a frame of it: eight frames of a minute would miss it."""


def build_bank(
    model: LlavaForConditionalGeneration,
    mix: Mix,
    count: int,
    log: Callable[[str], None],
    autocast: Callable[[], Any],
) -> list[SeenClip]:
    """Return scenes ``mix.bank_seed`` to ``mix.bank_seed + count - 1`` through the tower."""
    bank: list[SeenClip] = []
    for seed in range(mix.bank_seed, mix.bank_seed + count):
        rng = np.random.default_rng((2, seed))
        scene = mix.scene(rng, seed)
        frames = frames_for_tower(scene, _times(scene, rng), rng, mix.frame_scale(rng))
        with torch.no_grad(), autocast():
            bank.append(see(model, scene, frames))
        if len(bank) % 500 == 0:
            log(f"bank {len(bank)} of {count} clips")
    return bank


def see(model: LlavaForConditionalGeneration, scene: Scene, frames: torch.Tensor) -> SeenClip:
    """Return one scene through the tower, from its frames uint8 (T, h, w, 3)."""
    height, width = frames.shape[1:3]
    with torch.no_grad():
        output = model.model.get_image_features(
            to_planes(frames.to(model.device), PIXELS),
            return_dict=True,
            interpolate_pos_encoding=(height, width) != (FRAME.height, FRAME.width),
        )
    return SeenClip(
        scene=scene,
        tokens=torch.cat(list(output.pooler_output)).to(torch.float16).cpu(),
        grid=(len(frames), height // PIXELS.patch_size, width // PIXELS.patch_size),
        positions_per_step=1.0,
        change=change_of(frames),
    )


def frames_for_tower(
    scene: Scene, times: list[float], rng: np.random.Generator | None, scale: float = 1.0
) -> torch.Tensor:
    """Return the frames at ``times`` (seconds), uint8 (T, h, w, 3); ``scale`` shrinks their number of tokens."""
    side = max(1, round(FRAME.height / PIXELS.patch_size * scale**0.5)) * PIXELS.patch_size
    # nano repeats an odd last frame.
    return frames_of(scene, times, rng, (side, side))[: len(times)].permute(0, 2, 3, 1).contiguous()


def sample(scene: Scene, count: int) -> list[float]:
    """Return the times (seconds) of the frames on display at the centres of ``count`` equal parts of a clip."""
    if scene.still:
        return [0.0]
    centres = ((2 * part + 1) * scene.num_frames // (2 * count) for part in range(count))
    return [frame / scene.fps for frame in centres]


def change_of(frames: torch.Tensor) -> np.ndarray:
    """Return how much each token's pixels differ from the frame before: float32 (T * tokens,), inf in the first."""
    planes = frames.permute(0, 3, 1, 2).float()
    change = F.avg_pool2d((planes[1:] - planes[:-1]).abs().mean(1, keepdim=True), PIXELS.patch_size)
    tokens = frames.shape[1] * frames.shape[2] // PIXELS.patch_size**2
    return np.concatenate([np.full(tokens, np.inf, np.float32), change.reshape(-1).numpy()])


def _times(scene: Scene, rng: np.random.Generator) -> list[float]:
    times = sample(scene, MAX_FRAMES if rng.random() < FULL_SHARE else int(rng.integers(2, MAX_FRAMES)))
    if scene.kind == "needle" and rng.random() < SURE_OF_FLASH:
        flash = scene.glyphs[0]
        middle = (flash.start + flash.stop) / 2
        times[int(np.argmin([abs(seconds - middle) for seconds in times]))] = middle
    return times
