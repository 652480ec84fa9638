"""k-means over the directions of tokens, with starts that spread over them; rows are never copied as a whole."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from tokcli.ops.pooling import nearest_members
from tokcli.ops.running_sums import RunningSums
from tokcli.ops.selection import top_k

ROWS_AT_A_TIME = 512
COSINES_AT_A_TIME = 1 << 22
TINY = 1e-8
SMOOTHING = 1e-6
"""Added to squared distances in the k-means++ draw, so that equal tokens can be drawn too."""


class Directions:
    """(N, D) rows of any float dtype, seen as unit vectors in float32; rows shorter than 1e-8 count as zero."""

    def __init__(self, rows: torch.Tensor) -> None:
        self._rows = rows
        self.norms = self._of_each(torch.float32, lambda some: torch.linalg.vector_norm(some, dim=1))
        """float32 (N,): lengths of the rows themselves."""
        self._inverse = torch.where(self.norms > TINY, 1.0 / self.norms.clamp_min(TINY), 0.0)
        self._unit_norms = (self.norms > TINY).to(torch.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def _of_each(
        self,
        dtype: torch.dtype,
        compute: Callable[[torch.Tensor], torch.Tensor],
        at_a_time: int = ROWS_AT_A_TIME,
    ) -> torch.Tensor:
        """(N,) values, computed from some rows in float32 after others."""
        # Into one place: small results that stay between large ones that go would leave the memory full of holes.
        values = torch.empty(len(self._rows), dtype=dtype)
        for some, place in zip(self._rows.split(at_a_time), values.split(at_a_time)):
            place.copy_(compute(some.float()))
        return values

    def at(self, indices: torch.Tensor) -> torch.Tensor:
        """Unit vectors of some rows: float32 (k, D)."""
        return self._rows[indices].float() * self._inverse[indices].unsqueeze(1)

    def dots(self, vector: torch.Tensor) -> torch.Tensor:
        """Scalar product of every unit vector with float32 (D,) ``vector``: float32 (N,)."""
        return self._of_each(torch.float32, lambda some: some @ vector) * self._inverse

    def squared_distances(self, index: int) -> torch.Tensor:
        """From every unit vector to the one at ``index``: float32 (N,)."""
        dots = self.dots(self.at(torch.tensor([index]))[0])
        return (self._unit_norms + self._unit_norms[index] - 2.0 * dots).clamp_min_(0.0)

    def most_alike(self, centroids: torch.Tensor) -> torch.Tensor:
        """The centroid with the largest cosine, for each row: int64 (N,), ties to the lowest index.

        ``centroids``: float32 (K, D), of any length.
        """
        unit = torch.nn.functional.normalize(centroids, dim=1, eps=TINY).T
        at_a_time = max(1, min(ROWS_AT_A_TIME, COSINES_AT_A_TIME // len(centroids)))
        # The length of a row scales all its products, so it does not change which one is the largest.
        return self._of_each(torch.int64, lambda some: (some @ unit).argmax(dim=1), at_a_time)

    def closeness(self, centroids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cosine of every row with the centroid of its own group: float32 (N,)."""
        unit = torch.nn.functional.normalize(centroids, dim=1, eps=TINY)
        groups = iter(labels.split(ROWS_AT_A_TIME))
        return self._of_each(torch.float32, lambda some: (some * unit[next(groups)]).sum(dim=1)) * self._inverse


class DirectionGroups:
    """A division of the rows into groups, with the means of their unit vectors."""

    def __init__(self, directions: Directions, num_groups: int, dim: int) -> None:
        self._directions = directions
        self._running = RunningSums(num_groups, dim)
        self.labels = torch.full((len(directions),), -1, dtype=torch.int64)
        """int64 (N,): the group of each row."""

    @property
    def sizes(self) -> torch.Tensor:
        """int64 (K,)."""
        return self._running.sizes

    def move(self, labels: torch.Tensor) -> None:
        """Make int64 (N,) ``labels`` the groups of the rows."""
        for moved in torch.nonzero(labels != self.labels).flatten().split(ROWS_AT_A_TIME):
            self._running.move(self._directions.at(moved), self.labels[moved], labels[moved])
        self.labels = labels

    def means(self) -> torch.Tensor:
        """float32 (K, D), without meaning for empty groups."""
        return self._running.means()

    def distortion(self, centroids: torch.Tensor) -> float:
        """Sum over all rows of the squared distance of the unit vector from the centroid of its group."""
        exact, sizes = centroids.double(), self.sizes.unsqueeze(1)
        lengths = float((self._directions.norms > TINY).sum())
        return lengths + float((sizes * exact * exact - 2.0 * self._running.sums * exact).sum())


def farthest_first(directions: Directions, k: int) -> torch.Tensor:
    """k different rows, each the farthest from those before it: int64 (k,); the first is the most central one.

    The first j of them are the choice for j; ties go to the lowest index.
    """
    total = sum(directions.at(some).sum(dim=0) for some in torch.arange(len(directions)).split(ROWS_AT_A_TIME))
    assert isinstance(total, torch.Tensor)
    return _spread(directions, k, int(directions.dots(total).argmax()), lambda distances: int(distances.argmax()))


def plus_plus(directions: Directions, k: int, generator: np.random.Generator) -> torch.Tensor:
    """k rows drawn as by k-means++, the first at random, the next in proportion to d^2 + 1e-6: int64 (k,)."""

    def draw(distances: torch.Tensor) -> int:
        cumulative = (distances.clamp_min(0.0).double() + SMOOTHING).cumsum(0).numpy()
        return min(
            int(np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right")), len(cumulative) - 1
        )

    return _spread(directions, k, int(generator.integers(len(directions))), draw)


def _spread(directions: Directions, k: int, first: int, choose: Callable[[torch.Tensor], int]) -> torch.Tensor:
    chosen = [first]
    nearest = torch.full((len(directions),), torch.inf)
    while len(chosen) < k:
        nearest = torch.minimum(nearest, directions.squared_distances(chosen[-1]))
        # Below any distance, so that a row is not taken twice even when all are equal.
        nearest[chosen[-1]] = -1.0
        chosen.append(choose(nearest))
    return torch.tensor(chosen)


def cosine_kmeans(
    directions: Directions, start: torch.Tensor, *, max_iterations: int, tolerance: float
) -> tuple[torch.Tensor, DirectionGroups]:
    """Lloyd's iterations by cosine from float32 (K, D) ``start``.

    A centroid is the mean of the unit vectors of its rows, not made a unit vector again; without rows it stays where
    it was. Ends when the centroids together moved less than ``tolerance`` (Frobenius norm); that last move is not made.

    Returns the float32 (K, D) centroids, and the groups with their labels and means.
    """
    centroids, groups = start, DirectionGroups(directions, *start.shape)
    for _ in range(max_iterations):
        groups.move(directions.most_alike(centroids))
        moved = torch.where(groups.sizes.unsqueeze(1) > 0, groups.means(), centroids)
        if float(torch.linalg.matrix_norm(moved - centroids)) < tolerance:
            break
        centroids = moved
    return centroids, groups


def without_empty(closeness: torch.Tensor, labels: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Groups that all have rows: where some of ``k`` have none, rows that fit theirs worst become groups instead.

    ``closeness``: float32 (N,), of each row to its group; ``labels``: int64 (N,); N is at least k. Returns the labels,
    in which groups that had rows keep their order and the others follow, and the row of each group that is closest to
    it, int64 (k,).
    """
    used, labels = torch.unique(labels, return_inverse=True)
    members = nearest_members(labels, -closeness, len(used))
    empty = k - len(used)
    if empty > 0:
        misfits = top_k(-closeness.index_fill(0, members, torch.inf), empty)
        labels[misfits] = torch.arange(empty) + len(used)
        members = torch.cat([members, misfits])
    return labels, members
