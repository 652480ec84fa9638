"""Clusters that start as the cells of a grid and stay near them, and the way back to all tokens (arXiv:2210.01035)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

ROWS_AT_A_TIME = 4096
SMALLEST = 1e-16


@dataclass(frozen=True)
class Superpixels:
    """Clusters of a picture with H x W places."""

    centroids: torch.Tensor
    """float32 (C, D), by row and column of the grid of clusters."""
    labels: torch.Tensor
    """int64 (H * W,): the nearest cluster of each place, be it ever so far away."""


def superpixels(
    tokens: torch.Tensor,
    shape: tuple[int, int],
    *,
    iterations: int = 5,
    temperature: float = 0.01,
    window: int = 5,
    present: torch.Tensor | None = None,
) -> Superpixels:
    """Cluster (H, W, D) float32 tokens into ``shape``, (rows, columns) of clusters, each at most as many as places.

    A cluster starts as the average over a cell of the grid. In each iteration a token is shared among the clusters
    around its cell, up to ``window // 2`` cells away in both directions, by a softmax of ``-temperature`` times the
    squared distance, and a cluster becomes the average of its shares.

    ``present``: bool (H, W), the places that have a token; the others are zeros and count for nothing. Their labels
    have no meaning, and neither have centroids of cells where no token is.
    """
    height, width, dim = tokens.shape
    # In float64: how a product is divided among threads changes its last digits, which must not reach the result.
    flat = tokens.reshape(-1, dim).double()
    there = None if present is None else present.flatten()
    centroids, filled = _averages(flat.view_as(tokens), shape, present)
    bands = list(_bands(height, width, shape, window // 2))
    for _ in range(iterations):
        sums, totals = torch.zeros_like(centroids), torch.zeros(len(centroids), dtype=torch.float64)
        lengths = centroids.square().sum(dim=1).masked_fill(~filled, torch.inf)
        for band in bands:
            rows, near = flat[band.places], slice(band.first, band.first + band.allowed.shape[1])
            # Without the squared lengths of the tokens, which are the same for all clusters.
            distances = torch.addmm(lengths[near], rows, centroids[near].T, alpha=-2.0)
            distances.masked_fill_(~band.allowed, torch.inf)
            shares = distances.mul_(-temperature).softmax(dim=1)
            if there is not None:
                # Where no cluster around a place has tokens there is none there either, and its shares are not numbers.
                shares = torch.where(there[band.places].unsqueeze(1), shares, 0.0)
            sums[near] += shares.T @ rows
            totals[near] += shares.sum(dim=0)
        centroids = sums / totals.clamp_min(SMALLEST).unsqueeze(1)
    lengths = centroids.square().sum(dim=1).masked_fill(~filled, torch.inf)
    labels = [torch.addmm(lengths, some, centroids.T, alpha=-2.0).argmin(dim=1) for some in flat.split(ROWS_AT_A_TIME)]
    return Superpixels(centroids.float(), torch.cat(labels))


def _averages(
    tokens: torch.Tensor, shape: tuple[int, int], present: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Averages over cells that may overlap by a row or column: float64 (C, D); bool (C,), whether there was a token."""
    height, width, dim = tokens.shape
    rows, columns = _covers(height, shape[0]), _covers(width, shape[1])
    sums = columns @ (rows @ tokens.reshape(height, -1)).view(shape[0], width, dim)
    counted = torch.ones((height, width), dtype=torch.float64) if present is None else present.double()
    counts = (rows @ counted @ columns.T).flatten()
    return sums.flatten(0, 1) / counts.clamp_min(1).unsqueeze(1), counts > 0


def _covers(length: int, cells: int) -> torch.Tensor:
    """Which places each cell of an adaptive average covers: float64 (cells, length), 0 or 1."""
    index, place = torch.arange(cells).unsqueeze(1), torch.arange(length)
    return ((place >= index * length // cells) & (place < -(-(index + 1) * length // cells))).double()


@dataclass(frozen=True)
class _Band:
    """The places whose cells stand in one row of the grid of clusters, and the clusters that they may go to."""

    places: slice
    first: int
    """The first of these clusters."""
    allowed: torch.Tensor
    """bool (number of places, number of clusters)."""


def _bands(height: int, width: int, shape: tuple[int, int], reach: int) -> Iterator[_Band]:
    row, column = _nearest_cells(height, shape[0]), _nearest_cells(width, shape[1])
    beside = (column.unsqueeze(1) - torch.arange(shape[1])).abs() <= reach
    ends = torch.bincount(row, minlength=shape[0]).cumsum(dim=0).tolist()
    for index, (start, stop) in enumerate(zip([0, *ends], ends)):
        first, last = max(0, index - reach), min(shape[0], index + reach + 1)
        allowed = beside.repeat(stop - start, last - first)
        if stop > start:
            yield _Band(slice(start * width, stop * width), first * shape[1], allowed)


def _nearest_cells(length: int, cells: int) -> torch.Tensor:
    """The cell of each place as nearest upsampling gives it, in float32: int64 (length,)."""
    scale = torch.tensor(cells / length, dtype=torch.float32)
    return (torch.arange(length, dtype=torch.float32) * scale).long().clamp_max(cells - 1)


def reconstructed(
    tokens: torch.Tensor,
    before: torch.Tensor,
    after: torch.Tensor,
    *,
    k: int = 20,
    temperature: float = 0.01,
    variant: Literal["official", "fixed"] = "fixed",
) -> torch.Tensor:
    """Give every token what became of the clusters that it is near to: float32 (n, D').

    ``tokens``: float32 (n, D), ``before``: (C, D), the clusters; ``after``: (C, D'), what was made of them. The weight
    of a cluster is ``exp(-temperature * d^2)``; the ``k`` largest count, and those equal to the last of them, as many
    as there are clusters at most. They are divided by their sum (``fixed``), or, in the authors' code, by the root of
    the sum of their squares (``official``), which makes what comes out several times as long.
    """
    return torch.cat(
        [_reconstructed(some, before, after, k, temperature, variant) for some in tokens.split(ROWS_AT_A_TIME)]
    )


def _reconstructed(
    tokens: torch.Tensor, before: torch.Tensor, after: torch.Tensor, k: int, temperature: float, variant: str
) -> torch.Tensor:
    squares = tokens.square().sum(dim=1, keepdim=True) + before.square().sum(dim=1)
    distances = torch.addmm(squares, tokens, before.T, alpha=-2.0).clamp_min_(0)
    # From the nearest cluster on: a common factor of a row does not matter, and far tokens keep their weights.
    weights = torch.exp(-temperature * (distances - distances.amin(dim=1, keepdim=True)))
    least = weights.topk(min(k, len(before)), dim=1).values[:, -1:]
    weights = torch.where(weights >= least, weights, 0.0)
    total = weights.sum(dim=1) if variant == "fixed" else torch.linalg.vector_norm(weights, dim=1)
    return (weights @ after) / total.unsqueeze(1)
