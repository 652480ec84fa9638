"""How much a projector's output moves when what it is given moves (ZOO-Prune, arXiv:2509.24837)."""

from __future__ import annotations

from collections.abc import Callable

import torch

DIRECTIONS = 64
"""The authors' number of ways off a token."""
DISTANCE = 0.01
"""How far they go."""


def sensitivity(
    features: torch.Tensor,
    projector: Callable[[torch.Tensor], torch.Tensor],
    directions: torch.Tensor,
    distance: float = DISTANCE,
) -> torch.Tensor:
    """How far apart the projector takes two points on either side of a token, for each way off it, on average: (N,).

    ``features``: (N, C) before the projector, float32 at least: in half precision the two points may be one.
    ``projector``: from (N, C) to (N, D). ``directions``: (m, C), of length 1. It takes 2 m passes of the projector.
    """
    total = torch.zeros(len(features), dtype=features.dtype, device=features.device)
    for direction in directions:
        step = distance * direction
        total += torch.linalg.vector_norm(projector(features + step) - projector(features - step), dim=1)
    return total / (2 * distance * len(directions))
