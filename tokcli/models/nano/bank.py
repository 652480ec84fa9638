"""Clips that the finished tower has seen once, for the language model to be asked about many times."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from tokcli.models.nano.architecture import PIXELS, TOKENS_PER_SECOND
from tokcli.models.nano.clips import TOKEN_PX, change_of, dense_labels, frames_of, patches_of, tower_size
from tokcli.models.nano.curriculum import ALL, Mix
from tokcli.synthetic import Scene

FRAMES_PER_STEP = PIXELS.temporal_patch_size
CLIPS_PER_CALL = 8
ONE_MOTION = ("short", "pan", "shake", "noisy", "small")
"""Kinds that look much the same at all times, so that every rate of frames will do."""


@dataclass(frozen=True)
class SeenClip:
    """A scene as the language model receives it."""

    scene: Scene
    tokens: torch.Tensor
    """float16 (N, D), rows in (t, y, x) order."""
    grid: tuple[int, int, int]
    """Steps, rows, columns of tokens."""
    positions_per_step: float
    """By which the temporal position grows from step to step; 1 for a still."""
    change: np.ndarray
    """float32 (N,): mean absolute difference of a token's pixels (0 to 255) from the step before; inf in the first."""
    shown: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Which shape and which character each token shows, int64 (N,) as ``dense_labels`` tells it; empty if unknown."""


def build_bank(
    model: Qwen2_5_VLForConditionalGeneration,
    mix: Mix,
    count: int,
    log: Callable[[str], None],
    autocast: Callable[[], Any],
) -> list[SeenClip]:
    """Return scenes ``mix.bank_seed`` to ``mix.bank_seed + count - 1`` through the tower."""
    bank: list[SeenClip] = []
    end = mix.bank_seed + count
    for start in range(mix.bank_seed, end, CLIPS_PER_CALL):
        seeds = range(start, min(start + CLIPS_PER_CALL, end))
        views, shown = [], []
        for seed in seeds:
            rng = np.random.default_rng((2, seed))
            scene, size, times, fps = _plan(mix, seed, rng)
            views.append((scene, frames_of(scene, times, rng, size), fps))
            shown.append(shown_in(scene, times, size) if mix.labelled else {})
        bank += [replace(clip, shown=labels) for clip, labels in zip(_see(model, views, autocast), shown)]
        if len(bank) % 1000 < CLIPS_PER_CALL:
            log(f"bank {len(bank)} of {count} clips")
    return bank


def see(model: Qwen2_5_VLForConditionalGeneration, scene: Scene, frames: torch.Tensor, fps: float | None) -> SeenClip:
    """Return one scene through the tower, from its frames uint8 (T, 3, h, w) at ``fps``; None for a still."""
    return _see(model, [(scene, frames, fps)], lambda: torch.autocast(model.device.type, enabled=False))[0]


def sample(scene: Scene, fps: float, max_frames: int = ALL.max_frames) -> tuple[list[float], float]:
    """Return the times (seconds) of the frames that a reader takes from the clip, and their rate.

    At each tick the frame on display is taken; more than ``max_frames`` ticks are spread evenly.
    """
    fps = min(fps, max_frames / scene.duration_seconds)
    ticks = [tick / fps for tick in range(math.ceil(scene.duration_seconds * fps - 1e-6))]
    return [math.floor(tick * scene.fps + 1e-6) / scene.fps for tick in ticks], fps


def _plan(mix: Mix, seed: int, rng: np.random.Generator) -> tuple[Scene, tuple[int, int], list[float], float | None]:
    """Draw a scene, its (height, width) for the tower, the times (seconds) of its frames and their rate."""
    scene = mix.scene(rng, seed)
    size = tower_size(scene.height, scene.width, mix.frame_scale(rng))
    if scene.still:
        return scene, size, [0.0], None
    if scene.kind in ONE_MOTION:
        rate = float(rng.choice([0.5, 1.0, 1.0, 1.0, 2.0, math.exp(rng.uniform(-0.7, 0.7))]))
    else:
        # What happens once must be seen: these clips are made for one frame a second at least.
        rate = float(rng.choice([1.0, 1.0, 1.0, 2.0])) if scene.duration_seconds < 30 else 1.0
    return scene, size, *sample(scene, rate, mix.max_frames)


def shown_in(scene: Scene, times: Sequence[float], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return which shape and which character every token shows: int64 (N,) each; an odd last frame is repeated."""
    pairs = [(times[i], times[min(i + 1, len(times) - 1)]) for i in range(0, len(times), FRAMES_PER_STEP)]
    steps = [dense_labels(scene, pair, size) for pair in pairs]
    return {kind: np.concatenate([step[kind] for step in steps]) for kind in ("shape", "character")}


def _see(
    model: Qwen2_5_VLForConditionalGeneration,
    views: list[tuple[Scene, torch.Tensor, float | None]],
    autocast: Callable[[], Any],
) -> list[SeenClip]:
    sizes = [tuple(frames.shape[2:]) for _, frames, _ in views]
    steps = [len(frames) // FRAMES_PER_STEP for _, frames, _ in views]
    grids = torch.tensor(
        [[step, height // PIXELS.patch_size, width // PIXELS.patch_size] for step, (height, width) in zip(steps, sizes)]
    )
    patches = torch.cat([patches_of(frames) for _, frames, _ in views])
    with torch.no_grad(), autocast():
        tokens = model.model.visual(patches.to(model.device), grids.to(model.device)).pooler_output
    parts = tokens.to(torch.float16).cpu().split((grids.prod(1) // 4).tolist())
    return [
        SeenClip(
            scene=scene,
            tokens=part.clone(),
            grid=(step, height // TOKEN_PX, width // TOKEN_PX),
            positions_per_step=1.0 if fps is None else TOKENS_PER_SECOND * FRAMES_PER_STEP / fps,
            change=change_of(frames).reshape(-1),
        )
        for (scene, frames, fps), step, (height, width), part in zip(views, steps, sizes, parts)
    ]
