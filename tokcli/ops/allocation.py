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
