"""Dividing a number of tokens among parts, in whole numbers and without a token lost."""

from __future__ import annotations

import numpy as np
import torch


def proportional(sizes: torch.Tensor, total: int) -> torch.Tensor:
    """Divide ``total`` among parts in proportion to their sizes: int64 (G,), none above its size, summing to ``total``.

    ``sizes``: int64 (G,), summing to at least ``total``. Where there is one for each, every part that is not empty
    gets one first. The rest goes by whole quotas, what is then left to the largest remainders, ties to the lowest
    index.
    """
    parts = sizes.tolist()
    filled = sum(size > 0 for size in parts)
    least = [int(size > 0) if total >= filled else 0 for size in parts]
    rest, whole = total - sum(least), max(1, sum(parts) - sum(least))
    # Whole numbers of Python: parts are few, and calls of torch long.
    quotas = [divmod(rest * (size - one), whole) for size, one in zip(parts, least)]
    shares = [one + quota for one, (quota, _) in zip(least, quotas)]
    by_remainder = sorted(range(len(parts)), key=lambda part: -quotas[part][1])
    for part in by_remainder[: total - sum(shares)]:
        shares[part] += 1
    return torch.tensor(shares, dtype=torch.int64)


def by_weight(weights: torch.Tensor, total: int, sizes: torch.Tensor) -> torch.Tensor:
    """Divide ``total`` among parts by weight: int64 (G,), none above its size, summing to ``total`` if there is room.

    ``weights``: float (G,), not negative; all alike if they are all zero. Each part gets its whole quota; what is left,
    also by parts that are full, goes one by one to the others, the largest weight first, ties to the lowest index.
    """
    # NumPy's calls are shorter than torch's, and parts are few.
    shares, room = weights.double().numpy(), sizes.numpy()
    whole = shares.sum()
    if not whole > 0:
        shares, whole = np.ones(len(shares)), float(len(shares))
    counts = np.minimum(np.floor(shares / whole * total).astype(np.int64), room)
    order = np.argsort(-shares, kind="stable")
    left = min(total, int(room.sum())) - int(counts.sum())
    while left > 0:
        able = order[(counts < room)[order]][:left]
        counts[able] += 1
        left -= len(able)
    return torch.from_numpy(counts)
