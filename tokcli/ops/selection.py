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


def evenly_spaced(count: int, k: int) -> torch.Tensor:
    """``floor(i * count / k)`` for i < k: int64 (k,), in exact integer arithmetic; ``k`` is at most ``count``."""
    return torch.arange(k, dtype=torch.int64) * count // k
