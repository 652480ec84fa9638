"""Clips as nano's language model gets them in training, without a tower."""

import numpy as np
import torch

from tokcli.models.nano.bank import SeenClip
from tokcli.synthetic import make_scene


def clip_without_pixels(seed: int, grid: tuple[int, int, int] = (3, 4, 5)) -> SeenClip:
    """Random tokens in place of the tower's."""
    count = grid[0] * grid[1] * grid[2]
    tokens = torch.from_numpy(np.random.default_rng(seed).standard_normal((count, 192), np.float32))
    change = np.r_[np.full(20, np.inf), np.linspace(0, 40, count - 20)].astype(np.float32)
    return SeenClip(make_scene("short", seed), tokens.half(), grid, 4.0, change)
