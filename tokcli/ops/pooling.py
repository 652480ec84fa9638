"""Averages over groups of tokens, and the grid cells that groups come from."""

from __future__ import annotations

import math

import torch

ROWS_AT_A_TIME = 1024


def group_means(rows: torch.Tensor, labels: torch.Tensor, num_groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of the rows of each group.

    ``rows``: (N, D) float; ``labels``: int64 (N,), the group of each row or -1 for none.
    Returns the means, (num_groups, D) in the dtype of ``rows`` but summed in float32, and the group sizes, int64
    (num_groups,). A group without rows has a mean of zeros.
    """
    # One group more takes the rows that belong to none; runs of rows bound the memory of the float32 copies.
    labels = torch.where(labels >= 0, labels, num_groups)
    sums = torch.zeros((num_groups + 1, rows.shape[1]), dtype=torch.float32)
    for some_rows, some_labels in zip(rows.split(ROWS_AT_A_TIME), labels.split(ROWS_AT_A_TIME)):
        sums.index_add_(0, some_labels, some_rows.float())
    sums = sums[:num_groups]
    sizes = torch.bincount(labels, minlength=num_groups)[:num_groups]
    return (sums / sizes.clamp_min(1).unsqueeze(1)).to(rows.dtype), sizes


def frame_means(frames: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Mean token of every frame: float32 (T, D), of (T, P, D) float frames with zeros where bool (T, P) is false."""
    sums = torch.stack([frame.float().sum(dim=0) for frame in frames])
    return sums / present.sum(dim=1, keepdim=True)


def grid_cells(length: int, cells: int) -> torch.Tensor:
    """The cell of each of ``length`` places on one axis: int64 (length,), ``floor(i * cells / length)``.

    Cells partition the axis, sizes differ by at most one, none is empty for ``cells <= length``.
    """
    return torch.arange(length, dtype=torch.int64) * cells // length


def cell_centres(length: int, cells: int) -> torch.Tensor:
    """The middle place of each cell of :func:`grid_cells`: int64 (cells,), the lower of two."""
    edges = -(-torch.arange(cells + 1, dtype=torch.int64) * length // cells)
    return (edges[:-1] + edges[1:] - 1) // 2


def grid_shape_within(height: int, width: int, budget: int) -> tuple[int, int]:
    """The (h', w') nearest to the proportions of (height, width) with ``h' * w' <= max(1, budget)``.

    ``h' = round(sqrt(budget * height / width))`` within 1..height, ``w' = budget // h'`` within 1..width.
    """
    rows = min(max(round(math.sqrt(budget * height / width)), 1), height, max(budget, 1))
    return rows, min(max(budget // rows, 1), width)


def nearest_members(labels: torch.Tensor, distances: torch.Tensor, num_groups: int) -> torch.Tensor:
    """The row of each group that is nearest: int64 (num_groups,), ties to the lowest row.

    ``labels``: int64 (N,), the group of each row, all groups having one; ``distances``: (N,).
    """
    by_distance = torch.sort(distances, stable=True).indices
    order = by_distance[torch.sort(labels[by_distance], stable=True).indices]
    sizes = torch.bincount(labels, minlength=num_groups)
    return order[sizes.cumsum(0) - sizes]
