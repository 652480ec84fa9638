"""Token lists that the tests of methods share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tokcli.types import View, VisualTokens


def video(tokens: Any, grid: Any, *, seconds_per_step: float | None = 1.0, **signals: torch.Tensor) -> VisualTokens:
    """One view of frames: ``tokens`` is an array of T * H * W rows in any leading shape."""
    steps, height, width = (int(size) for size in grid)
    rows = torch.as_tensor(np.asarray(tokens) if not isinstance(tokens, torch.Tensor) else tokens)
    axes = torch.meshgrid(
        torch.arange(1), torch.arange(steps), torch.arange(height), torch.arange(width), indexing="ij"
    )
    return VisualTokens(
        tokens=rows.reshape(steps * height * width, -1),
        coords=torch.stack(axes, dim=-1).reshape(-1, 4).to(torch.int32),
        views=(View("frames", (steps, height, width)),),
        structural=torch.zeros(steps * height * width, dtype=torch.bool),
        signals=signals,
        seconds_per_step=seconds_per_step,
    )
