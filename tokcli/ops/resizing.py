"""Coarser grids: which places make each cell, with what weights, by averages over cells or by bilinear samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tokcli.ops.pooling import cell_centres, grid_cells


@dataclass(frozen=True)
class Axis:
    """How one axis of a grid is divided."""

    cells: torch.Tensor
    """int64 (length,): the cell of each place, -1 for none."""
    middles: torch.Tensor
    """int64 (number of cells,): the middle place of each cell, the lower of two."""

    @classmethod
    def of_cells(cls, length: int, cells: int) -> Axis:
        """``cells`` of them, as even as can be."""
        return cls(grid_cells(length, cells), cell_centres(length, cells))

    @classmethod
    def of_windows(cls, length: int, window: int, *, partial: bool) -> Axis:
        """Every ``window`` places; what is left at the end is a smaller cell (``partial``), or none.

        An axis shorter than the window is one cell.
        """
        window = min(window, length)
        cells = torch.arange(length) // window
        count = -(-length // window) if partial else length // window
        first = torch.arange(count) * window
        last = (first + window).clamp_max(length) - 1
        return cls(torch.where(cells < count, cells, -1), (first + last) // 2)


@dataclass(frozen=True)
class Samples:
    """Bilinear samples of a grid with P places at P' points."""

    places: torch.Tensor
    """int64 (4, P'): the places around each point."""
    weights: torch.Tensor
    """float32 (4, P'), summing to 1."""

    def cells(self, num_places: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The point that each place counts most for, int64 (P,), -1 where for none, and its weight there, float32."""
        flat, points = self.places.flatten(), torch.arange(self.places.shape[1]).repeat(4)
        most = torch.zeros(num_places).scatter_reduce_(0, flat, self.weights.flatten(), "amax")
        theirs = (self.weights.flatten() == most[flat]) & (self.weights.flatten() > 0)
        none = self.places.shape[1]
        cells = torch.full((num_places,), none).scatter_reduce_(0, flat[theirs], points[theirs], "amin")
        return torch.where(cells < none, cells, -1), most


def bilinear(grid: tuple[int, int], shape: tuple[int, int]) -> Samples:
    """What ``torch.nn.functional.interpolate`` does from one (rows, columns) to another, ``align_corners=False``.

    Without antialiasing: where a grid shrinks to less than half, places between the points do not count.
    """
    (top, below), (left, beside) = (_around(length, points) for length, points in zip(grid, shape))
    places = [row[0].unsqueeze(1) * grid[1] + column[0] for row in (top, below) for column in (left, beside)]
    weights = [row[1].unsqueeze(1) * column[1] for row in (top, below) for column in (left, beside)]
    return Samples(torch.stack(places).flatten(1), torch.stack(weights).flatten(1))


def _around(length: int, points: int) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """The place before and after each point of an axis, with their weights."""
    at = ((torch.arange(points) + 0.5) * (length / points) - 0.5).clamp_min_(0)
    before = at.long().clamp_max_(length - 1)
    weight = at - before
    return (before, 1 - weight), ((before + 1).clamp_max(length - 1), weight)
