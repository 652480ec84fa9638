"""Dividing a number of tokens among parts, in whole numbers and without a token lost."""

from __future__ import annotations

import torch

from tokcli.ops.selection import top_k_mask


def proportional(sizes: torch.Tensor, total: int) -> torch.Tensor:
    """Divide ``total`` among parts in proportion to their sizes: int64 (G,), none above its size, summing to ``total``.

    ``sizes``: int64 (G,), summing to at least ``total``. Where there is one for each, every part that is not empty
    gets one first. The rest goes by whole quotas, what is then left to the largest remainders, ties to the lowest
    index.
    """
    filled = (sizes > 0).to(torch.int64)
    least = filled if total >= int(filled.sum()) else torch.zeros_like(filled)
    room = sizes - least
    rest, whole = total - int(least.sum()), max(1, int(room.sum()))
    quotas = rest * room
    shares = quotas // whole
    return least + shares + top_k_mask(quotas % whole, rest - int(shares.sum()))


def by_weight(weights: torch.Tensor, total: int, sizes: torch.Tensor) -> torch.Tensor:
    """Divide ``total`` among parts by weight: int64 (G,), none above its size, summing to ``total`` if there is room.

    ``weights``: float (G,), not negative; all alike if they are all zero. Each part gets its whole quota; what is left,
    also by parts that are full, goes one by one to the others, the largest weight first, ties to the lowest index.
    """
    shares = weights.double()
    if not bool(shares.sum() > 0):
        shares = torch.ones_like(shares)
    counts = torch.minimum((shares / shares.sum() * total).floor().to(torch.int64), sizes)
    order = torch.sort(shares, descending=True, stable=True).indices
    left = min(total, int(sizes.sum())) - int(counts.sum())
    while left > 0:
        able = order[(counts < sizes)[order]][:left]
        counts[able] += 1
        left -= len(able)
    return counts
