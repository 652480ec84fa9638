"""Choosing rows by score, with one rule for ties: equal scores, the lowest index first."""

from __future__ import annotations

import torch


def top_k(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Indices of the ``k`` largest of (N,) scores: int64 (min(k, N),), best first, ties to the lowest index.

    ``torch.topk`` leaves the order among equal scores open, so a stable sort decides.
    """
    return torch.sort(scores, descending=True, stable=True).indices[:k]


def top_k_mask(scores: torch.Tensor, k: int) -> torch.Tensor:
    """The same choice as a bool (N,) mask."""
    mask = torch.zeros(scores.shape[0], dtype=torch.bool, device=scores.device)
    mask[top_k(scores, k)] = True
    return mask


def top_k_masks(scores: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The same choice for each row of (F, N) scores, with as many as int64 (F,) ``counts`` says: bool (F, N)."""
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    chosen = torch.arange(scores.shape[1], device=scores.device) < counts.unsqueeze(1)
    return torch.zeros_like(chosen).scatter_(1, order, chosen)


def largest(values: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest of each list along a dimension of float values, and where it stands, int64: the first of equals."""
    if values.device.type != "cpu":
        best, where = values.max(dim=dim)
        return best, where
    # On a CPU ten times as fast as ``torch.max``, which looks at one number after another.
    where = torch.from_numpy(values.numpy().argmax(axis=dim))
    return values.gather(dim, where.unsqueeze(dim)).squeeze(dim), where


def evenly_spaced(count: int, k: int) -> torch.Tensor:
    """``floor(i * count / k)`` for i < k: int64 (k,), in exact integer arithmetic; ``k`` is at most ``count``."""
    return torch.arange(k, dtype=torch.int64) * count // k


def evenly_spread(count: int, k: int) -> torch.Tensor:
    """``round(i * (count - 1) / (k - 1))`` for i < k, the first and the last among them: int64 (k,); k <= count.

    In the float32 arithmetic of ``torch.linspace``, halves to the even number, because it decides in a few places
    of thousands; written out, so that it is the same on every machine. Below 2^24 all are different.
    """
    return _spread(count, k).round().long()


def evenly_spread_down(count: int, k: int) -> torch.Tensor:
    """:func:`evenly_spread`, but each is cut off to a whole number, not rounded."""
    return _spread(count, k).long()


def _spread(count: int, k: int) -> torch.Tensor:
    index = torch.arange(k, dtype=torch.float64)
    last = float(count - 1)
    step = (torch.tensor(last, dtype=torch.float32) / max(1, k - 1)).double()
    return torch.where((index < k // 2) | (k == 1), step * index, last - step * (k - 1 - index)).float()
