"""k-medoids: clusters whose middle is one of their points. In float64, because exact ties are common."""

from __future__ import annotations

from typing import Literal

import torch

from tokcli.ops.pooling import nearest_members

ROWS_AT_A_TIME = 512


def shortened(points: torch.Tensor) -> torch.Tensor:
    """(n, D) points at a length of almost 1, ``x / (|x| + 1e-6)``: float64. A point of zeros stays one."""
    points = points.double()
    return points / (torch.linalg.vector_norm(points, dim=1, keepdim=True) + 1e-6)


def pairwise_distances(points: torch.Tensor, distance: Literal["euclidean", "cosine"]) -> torch.Tensor:
    """Distances of (n, D) points: float64 (n, n), symmetric to the last bit, the same for equal points.

    From differences and not from a matrix product: a cluster of two points is a tie, which rounding must not decide.
    Cosine distance is 1 - the product of :func:`shortened` points. As those fall a little short of 1, a point has
    a distance of about 2e-6 / |x| from itself: of two, the longer one is then the better medoid, as it is for the
    authors of CenterCLIP.
    """
    if distance == "euclidean":
        return _symmetric(torch.nn.functional.pdist(points.double()))
    unit = shortened(points)
    lacking = 0.5 * (1.0 - unit.square().sum(dim=1))
    return _symmetric(torch.nn.functional.pdist(unit)).square_().mul_(0.5).add_(lacking).add_(lacking.unsqueeze(1))


def _symmetric(pairs: torch.Tensor) -> torch.Tensor:
    """The full matrix of the n * (n - 1) / 2 values above its diagonal."""
    count = round((1 + (1 + 8 * len(pairs)) ** 0.5) / 2)
    matrix = torch.zeros((count, count), dtype=pairs.dtype)
    above, beside = torch.triu_indices(count, count, offset=1)
    matrix[above, beside] = pairs
    matrix[beside, above] = pairs
    return matrix


def farthest_points(distances: torch.Tensor, k: int, first: int) -> torch.Tensor:
    """k different points, each the farthest from those before it: int64 (k,); ties to the lowest index."""
    chosen = torch.empty(k, dtype=torch.int64)
    nearest = torch.full((len(distances),), torch.inf, dtype=distances.dtype)
    point = first
    for index in range(k):
        chosen[index] = point
        torch.minimum(nearest, distances[point], out=nearest)
        # Below any distance, so that a point is not taken twice even when all are equal.
        nearest[point] = -1.0
        point = int(nearest.argmax())
    return chosen


def k_medoids(
    points: torch.Tensor, distances: torch.Tensor, start: torch.Tensor, *, max_iterations: int, threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clusters around k of the points: int64 (k,) medoids, ascending, and int64 (n,), the cluster of each point.

    ``distances``: (n, n); ``start``: int64 (k,), different points. A point goes to the nearest medoid, the first of
    several; the next medoid of a cluster is the member with the smallest sum of distances to the others, the lowest of
    several. Ends when the medoids of one iteration and the next differ by less than ``threshold``, summed over the
    numbers in their (n, D) ``points``, or after ``max_iterations``. A medoid belongs to itself, so none is empty.
    """
    medoids = start
    for _ in range(max_iterations):
        labels = _nearest(distances, medoids)
        following = nearest_members(labels, _sums_within(distances, labels), len(medoids))
        way = float((points[following].double() - points[medoids].double()).abs().sum())
        medoids = following
        if way < threshold:
            break
    medoids = medoids.sort().values
    return medoids, _nearest(distances, medoids)


def _nearest(distances: torch.Tensor, medoids: torch.Tensor) -> torch.Tensor:
    labels = distances[medoids].argmin(dim=0)
    labels[medoids] = torch.arange(len(medoids))
    return labels


def _sums_within(distances: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of the distances from each point to all of its cluster: (n,)."""
    parts = zip(distances.split(ROWS_AT_A_TIME), labels.split(ROWS_AT_A_TIME))
    return torch.cat([torch.where(own.unsqueeze(1) == labels, rows, 0.0).sum(dim=1) for rows, own in parts])


def affinity(points: torch.Tensor, sigma: float) -> torch.Tensor:
    """``exp(-d^2 / (2 sigma^2))`` of the distances of (n, D) points: float64 (n, n)."""
    return pairwise_distances(points, "euclidean").square_().mul_(-0.5 / sigma**2).exp_()


def spectral_coordinates(affinities: torch.Tensor, k: int) -> torch.Tensor:
    """The rows of the k lowest eigenvectors of the normalised Laplacian, at length 1: float64 (n, k).

    Where eigenvalues coincide, the vectors are any basis of their space.
    """
    scale = affinities.sum(dim=1).rsqrt()
    laplacian = torch.eye(len(affinities), dtype=torch.float64) - scale.unsqueeze(1) * affinities * scale
    return torch.nn.functional.normalize(torch.linalg.eigh(laplacian).eigenvectors[:, :k], dim=1)
