"""k-means of a few thousand points with restarts, all of which go forward together in one matrix product."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from tokcli.ops.running_sums import RunningSums

DISTANCES_AT_A_TIME = 1 << 23
"""Most distances that are held at a time: 32 MiB in float32."""

RELATIVE_TOLERANCE = 1e-4
MAX_ITERATIONS = 300


class Points:
    """float32 (N, D) points, moved so that their mean is zero, which loses the fewest digits in the distances."""

    def __init__(self, points: torch.Tensor) -> None:
        points = points.float()
        self.values = points - points.mean(dim=0)
        self.squares = self.values.square().sum(dim=1)
        """float32 (N,): squared lengths."""
        self.tolerance = RELATIVE_TOLERANCE * float(points.var(dim=0, correction=0).mean())
        """The squared way of all centroids together below which k-means ends."""

    def __len__(self) -> int:
        return len(self.values)

    def squared_distances(self, to: torch.Tensor) -> torch.Tensor:
        """From (M, D) to all points: float32 (M, N)."""
        squares = to.square().sum(dim=1, keepdim=True) + self.squares
        return torch.addmm(squares, to, self.values.T, alpha=-2.0).clamp_min_(0.0)

    def nearest(self, centroids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """For (R, K, D) centroids of R runs: int64 (R, N) labels and float32 (R, N) squared distances."""
        runs, groups, dim = centroids.shape
        flat = centroids.reshape(-1, dim)
        offsets = flat.square().sum(dim=1)
        found: list[tuple[torch.Tensor, torch.Tensor]] = []
        at_a_time = max(1, DISTANCES_AT_A_TIME // len(flat))
        for rows, squares in zip(self.values.split(at_a_time), self.squares.split(at_a_time)):
            relative = torch.addmm(offsets, rows, flat.T, alpha=-2.0).view(-1, runs, groups)
            smallest, nearest = relative.min(dim=2)
            found.append((nearest.T, (smallest.T + squares).clamp_min_(0.0)))
        return torch.cat([labels for labels, _ in found], dim=1), torch.cat([squared for _, squared in found], dim=1)


def kmeans(points: Points, k: int, *, restarts: int, seed: int) -> torch.Tensor:
    """Centroids of the best of several runs of k-means, float32 (k, D), in the terms of ``points.values``.

    The algorithm of scikit-learn's ``KMeans`` with its default settings, ``random_state=seed`` and float32 input, from
    the same random numbers: the start is a greedy k-means++ with 2 + ln k candidates a step, iterations end when no
    label changes or when the centroids moved by less than 1e-4 of the mean variance. Its results are equal up to
    rounding, in a fraction of its time. One difference: a centroid that lost all its points stays where it is.
    """
    centroids = _starts(points, k, restarts, seed)
    sums = RunningSums(restarts * k, centroids.shape[2])
    labels = torch.full((restarts, len(points)), -1, dtype=torch.int64)
    going = torch.arange(restarts)
    for _ in range(MAX_ITERATIONS):
        found, _ = points.nearest(centroids[going])
        for run, after in zip(going.tolist(), found):
            moved = torch.nonzero(after != labels[run]).flatten()
            before = labels[run, moved]
            sums.move(points.values[moved], torch.where(before >= 0, before + run * k, -1), after[moved] + run * k)
        means = torch.where(sums.sizes.unsqueeze(1) > 0, sums.means(), centroids.flatten(0, 1)).view_as(centroids)
        way = (means - centroids).square().sum(dim=(1, 2))[going]
        unchanged = (found == labels[going]).all(dim=1)
        labels[going], centroids[going] = found, means[going]
        going = going[~unchanged & (way > points.tolerance)]
        if len(going) == 0:
            break
    _, distances = points.nearest(centroids)
    return centroids[int(distances.double().sum(dim=1).argmin())]


def _starts(points: Points, k: int, restarts: int, seed: int) -> torch.Tensor:
    """First centroids of every run: float32 (R, K, D)."""
    trials = 2 + int(math.log(k))
    draws = np.random.RandomState(seed).random_sample((restarts, 1 + (k - 1) * trials))
    chosen = np.minimum((draws[:, :1] * len(points)).astype(np.int64), len(points) - 1)
    nearest = points.squared_distances(points.values[torch.from_numpy(chosen[:, 0])])
    for step in range(k - 1):
        thresholds = draws[:, 1 + step * trials : 1 + (step + 1) * trials]
        candidates = _drawn(nearest, thresholds)
        distances = points.squared_distances(points.values[candidates.flatten()]).view(restarts, trials, -1)
        distances = torch.minimum(distances, nearest.unsqueeze(1))
        best = distances.sum(dim=2).argmin(dim=1)
        runs = torch.arange(restarts)
        nearest = distances[runs, best]
        chosen = np.column_stack([chosen, candidates[runs, best].numpy()])
    return points.values[torch.from_numpy(chosen)]


def _drawn(weights: torch.Tensor, shares: npt.NDArray[np.float64]) -> torch.Tensor:
    """Points drawn with (R, N) weights by the (R, trials) uniform numbers: int64 (R, trials)."""
    cumulative = weights.double().cumsum(dim=1)
    found = torch.searchsorted(cumulative, torch.from_numpy(shares) * cumulative[:, -1:])
    return found.clamp_max(weights.shape[1] - 1)
