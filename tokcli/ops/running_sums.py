"""Sums over groups whose members change a little from one iteration to the next."""

from __future__ import annotations

import torch

ROWS_AT_A_TIME = 512


class RunningSums:
    """Sums and sizes of groups, kept up to date by the rows that moved: after a few iterations, few rows do."""

    def __init__(self, num_groups: int, dim: int) -> None:
        # In float64, so that adding and taking away thousands of times leaves the sum of those that are there.
        self.sums = torch.zeros((num_groups, dim), dtype=torch.float64)
        self.sizes = torch.zeros(num_groups, dtype=torch.int64)

    def move(self, rows: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> None:
        """Take (m, D) rows out of the groups ``before``, -1 for none, and into the groups ``after``: int64 (m,)."""
        groups = len(self.sums)
        parts = (values.split(ROWS_AT_A_TIME) for values in (rows, before, after))
        for some, left, joined in zip(*parts):
            exact = some.double()
            self.sums.index_add_(0, joined, exact)
            leaving = left >= 0
            if bool(leaving.any()):
                self.sums.index_add_(0, left[leaving], exact[leaving], alpha=-1.0)
        self.sizes += torch.bincount(after, minlength=groups) - torch.bincount(before[before >= 0], minlength=groups)

    def means(self) -> torch.Tensor:
        """float32 (num_groups, D), without meaning for empty groups."""
        return (self.sums / self.sizes.clamp_min(1).unsqueeze(1)).float()
