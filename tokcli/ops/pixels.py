"""How much the pixels under a token changed: the signal ``pixel_change``."""

from __future__ import annotations

import torch


def mean_absolute_difference(earlier: torch.Tensor, later: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Mean of ``|earlier - later| / 255`` over each cell of a grid of tokens: float32 (h * w,), raster order.

    ``earlier``, ``later``: uint8 (H, W, 3) RGB at the size given to the vision tower; ``grid``: (h, w), which divides
    (H, W). TimeChat-Online (arXiv 2504.17343, pixel criterion) compares the FIRST real frame of the step before with
    the LAST real frame of this step.
    """
    height, width = grid
    # Whole numbers below 2**24 are exact in float32, so the sum does not depend on its order.
    distance = (earlier.to(torch.int16) - later.to(torch.int16)).abs_().to(torch.float32)
    rows, columns, channels = distance.shape
    cells = distance.view(height, rows // height, width, columns // width * channels)
    sums = cells.sum(dim=(1, 3))
    return (sums / (rows // height * (columns // width) * channels * 255)).flatten()
