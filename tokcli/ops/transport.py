"""Optimal transport between tokens: Sinkhorn's iteration, and merging the tokens of one step into those of another.

Everything works in the precision that it is given. In float64, what is then rounded to float32 does not depend on how
many threads split the sums; in float32 it does.
"""

from __future__ import annotations

import math

import torch

from tokcli.ops.similarity import norms

EPSILON = 0.1
"""Strength of the entropy term: kernels are ``exp(-cost / EPSILON)``."""


def sinkhorn(
    kernel: torch.Tensor, max_iterations: int = 100, tolerance: float = 0.01, *, relative: bool = False
) -> torch.Tensor:
    """Plans with uniform margins: float (B, U, V), each summing to 1.

    ``kernel``: float (B, U, V), positive. The iteration stops when the scaling of the rows changes by less than
    ``tolerance`` on average over the whole batch: absolutely, or relative to its own size.
    """
    if kernel.numel() == 0:
        return kernel
    _, num_rows, num_columns = kernel.shape
    rows, columns = torch.ones_like(kernel[:, :, 0]), torch.ones_like(kernel[:, 0])
    for _ in range(max_iterations):
        before = rows
        rows = (1 / num_rows) / torch.bmm(kernel, columns.unsqueeze(2)).squeeze(2)
        columns = (1 / num_columns) / torch.bmm(rows.unsqueeze(1), kernel).squeeze(1)
        change = (rows - before).abs()
        if float((change / rows if relative else change).mean()) < tolerance:
            break
    return rows.unsqueeze(2) * kernel * columns.unsqueeze(1)


def cosines(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Cosine of each of (U, D) float rows with each of (V, D): (U, V)."""
    return (left @ right.T).div_(norms(left).unsqueeze(1)).div_(norms(right)).clamp_(-1, 1)


def kernel_to_anchors(
    tokens: torch.Tensor, anchors: torch.Tensor, others: torch.Tensor, places: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """How cheaply each other token of a step reaches each anchor, and which anchor it is most similar to.

    ``tokens``: (n, D) float; ``anchors``, ``others``: int64 (V,) and (U,), rows of them; ``places``: (n, 2) float,
    0 to 1 over the step. The cost is 1 - cosine plus half the distance of the places. Returns the kernel
    (U, V), and int64 (U,).
    """
    similarity = cosines(tokens, tokens[anchors])[others]
    offsets = places[others].unsqueeze(1) - places[anchors]
    cost = 1 - similarity + 0.5 * torch.hypot(offsets[..., 0], offsets[..., 1])
    return torch.exp(-cost / EPSILON), similarity.argmax(1)


def merge_into_anchors(
    tokens: torch.Tensor,
    anchors: torch.Tensor,
    others: torch.Tensor,
    plan: torch.Tensor,
    nearest: torch.Tensor,
    nearest_share: float,
) -> torch.Tensor:
    """New anchors, float (V, D): the mean weighed by a (U, V) plan, and a share of the mean of the nearest.

    An anchor has the weight 1 in both means; the other arguments are those of :func:`kernel_to_anchors`.
    """
    mass, counts = 1 + plan.sum(0), 1 + torch.bincount(nearest, minlength=len(anchors))
    by_plan, by_nearest = (1 - nearest_share) / mass, nearest_share / counts
    # One product with all tokens of the step instead of copies of some.
    weights = torch.zeros((len(tokens), len(anchors)), dtype=tokens.dtype)
    weights[others] = plan * by_plan
    weights[others, nearest] += by_nearest[nearest]
    weights[anchors, torch.arange(len(anchors))] = by_plan + by_nearest
    return weights.T @ tokens


def transport_over_time(
    anchors: torch.Tensor,
    sources: torch.Tensor,
    distance: int,
    keep_ratio: float,
    *,
    kept: int | None = None,
    width: float = 1.5,
    max_iterations: int = 100,
    relative: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Merge tokens of a later step into anchors, but for those that no anchor claims.

    ``anchors``: (V, D), ``sources``: (U, D), float; ``distance``: steps between them. The sources with the lowest
    largest share of their row in the plan stay: those below the quantile ``keep_ratio`` of it, or ``kept`` of them.

    Returns the new anchors (V, D), which sources stay, bool (U,), and the plan (U, V).
    """
    cost = 1 - cosines(sources, anchors).clamp_(-(1 - 1e-6), 1 - 1e-6)
    cost = (cost - cost.min()) * (1 - math.exp(-(distance**2) / (2 * width**2)))
    plan = sinkhorn(torch.exp(-cost / EPSILON).unsqueeze(0), max_iterations, relative=relative)[0]
    shares = plan / plan.sum(1, keepdim=True)
    certainty = shares.max(1).values
    if kept is None:
        kept = int((certainty.double() < torch.quantile(certainty.double(), keep_ratio)).sum())
    stays = torch.zeros(len(sources), dtype=torch.bool)
    stays[torch.sort(certainty, stable=True).indices[:kept]] = True
    shares = shares[~stays]
    merged = (anchors + shares.T @ sources[~stays]) / (1 + shares.sum(0)).unsqueeze(1)
    return merged, stays, plan
