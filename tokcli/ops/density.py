"""Density peaks (DPC-KNN): points with many near neighbours that are far from any denser point become centres."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from tokcli.ops.selection import top_k

MATRIX_ELEMENTS = 1 << 24
"""Most distances that are held at a time: 64 MiB in float32."""

RELIABLE = 1e-3
"""Below this share of the two squared norms, the product formula has too few digits left for a squared distance."""

PAIRS_AT_A_TIME = 4096
ROWS_AT_A_TIME = 256


class DensityPeaks:
    """The points of one set by density and by how far the next denser point is.

    ``points``: (n, D) float; ``neighbours``: k of the density, at most n are used. In float32, whatever the input is.
    Squared distances are divided by D; the density of a point is ``exp(-mean)`` of its k smallest, its own zero among
    them. Densities are kept as logarithms, so that they do not vanish for tokens with large norms. ``noise``: float32
    (n,), what is added to the densities themselves, so that chance decides between equal ones.

    The distance matrix is made by a product of centred points; pairs too close for that formula are measured by their
    differences, so that equal points are at distance zero. Above ``MATRIX_ELEMENTS`` it is made again, some rows at a
    time, whenever it is needed.
    """

    def __init__(self, points: torch.Tensor, neighbours: int, noise: torch.Tensor | None = None) -> None:
        points = points.float()
        self._points = points - points.mean(dim=0)
        self._norms = torch.linalg.vector_norm(self._points, dim=1).square_()
        count, dim = points.shape
        self._rows_at_a_time = max(1, MATRIX_ELEMENTS // count)
        self._whole = self._squared_distances(0, count) if count <= self._rows_at_a_time else None
        nearest = [_mean_of_smallest(squared, min(neighbours, count)) for _, squared in self._matrix()]
        log_density = torch.cat(nearest) / -dim
        self.log_density = log_density if noise is None else torch.logaddexp(log_density, noise.log())
        """float32 (n,)."""
        self.scores = self.log_density + 0.5 * torch.log(self._squared_separation() / dim)
        """float32 (n,): the logarithm of density times distance to the nearest denser point, which is the largest of
        all distances where there is none."""

    def _matrix(self) -> Iterator[tuple[int, torch.Tensor]]:
        """Runs of rows of the squared distances, each with its first row's number."""
        if self._whole is not None:
            yield 0, self._whole
            return
        count = len(self._points)
        for start in range(0, count, self._rows_at_a_time):
            yield start, self._squared_distances(start, min(count, start + self._rows_at_a_time))

    def _squared_distances(self, start: int, stop: int) -> torch.Tensor:
        """float32 (stop - start, n), not divided by D."""
        points, norms = self._points, self._norms
        own_norms = norms[start:stop].unsqueeze(1)
        if stop - start == len(points):
            squared = self._all_squared_distances()
        else:
            squared = torch.addmm(own_norms + norms, points[start:stop], points.T, alpha=-2.0)
        own = squared.diagonal(start)
        own.fill_(torch.inf)
        if bool(squared.amin() <= RELIABLE * (own_norms.amax() + norms.amax())):
            pairs = torch.nonzero(squared <= RELIABLE * (own_norms + norms))
            for left, right in (some.unbind(dim=1) for some in pairs.split(PAIRS_AT_A_TIME)):
                squared[left, right] = (points[start + left] - points[right]).square().sum(dim=1)
        own.zero_()
        return squared

    def _all_squared_distances(self) -> torch.Tensor:
        """The product formula for all pairs, float32 (n, n): what lies below the diagonal is copied from above."""
        points, norms, count = self._points, self._norms, len(self._points)
        squared = torch.empty((count, count))
        for start in range(0, count, ROWS_AT_A_TIME):
            stop = min(count, start + ROWS_AT_A_TIME)
            strip = squared[start:stop, start:]
            torch.add(norms[start:stop].unsqueeze(1), norms[start:], out=strip)
            strip.addmm_(points[start:stop], points[start:].T, alpha=-2.0)
            squared[stop:, start:stop] = strip[:, stop - start :].T
        return squared

    def _squared_separation(self) -> torch.Tensor:
        density = self.log_density
        nearest, largest = [], torch.zeros(())
        for start, squared in self._matrix():
            denser = density > density[start : start + len(squared)].unsqueeze(1)
            nearest.append(torch.where(denser, squared, torch.inf).amin(dim=1))
            largest = torch.maximum(largest, squared.max())
        separation = torch.cat(nearest)
        return torch.where(separation.isinf(), largest, separation)

    def centres(self, count: int) -> torch.Tensor:
        """The ``count`` points with the highest scores: int64, best first, ties to the lowest index."""
        return top_k(self.scores, count)

    def nearest(self, centres: torch.Tensor) -> torch.Tensor:
        """The nearest of ``centres`` for each point: int64 (n,), positions in ``centres``.

        A centre belongs to itself; ties go to the first.
        """
        labels = torch.cat([squared.index_select(1, centres).argmin(dim=1) for _, squared in self._matrix()])
        labels[centres] = torch.arange(len(centres))
        return labels


def _mean_of_smallest(rows: torch.Tensor, k: int) -> torch.Tensor:
    """Mean of the ``k`` smallest numbers of each row: float32 (n,), of float32 (n, m)."""
    return rows.topk(k, dim=1, largest=False).values.mean(dim=1)
