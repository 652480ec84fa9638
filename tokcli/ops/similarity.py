"""Cosines between tokens, in float32 whatever the input is, and in bounded memory."""

from __future__ import annotations

import numpy as np
import torch

TINY = 1e-8
"""Norms are not taken smaller than this, so that a zero vector has cosine 0 with everything."""


def cosine(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Row by row cosine of two (N, D) float tensors: float32 (N,), within [-1, 1].

    ``left . right / (max(|left|, 1e-8) * max(|right|, 1e-8))``.
    """
    left, right = left.float(), right.float()
    return cosine_from((left * right).sum(dim=1), norms(left), norms(right))


def row_dots(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Row by row scalar products of two (N, D) float32 tensors: float32 (N,).

    One pass without a product in between, which takes a third of the time of ``(left * right).sum(1)``.
    """
    return torch.from_numpy(np.vecdot(left.numpy(), right.numpy()))


def norms(rows: torch.Tensor) -> torch.Tensor:
    """Lengths of (..., D) float32 rows, none below ``TINY``: float32 (...)."""
    return torch.linalg.vector_norm(rows, dim=-1).clamp_min_(TINY)


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
    previous_norm = None if previous is None else norms(previous)
    product: torch.Tensor | None = None
    for index in range(num_frames):
        current = frames[index].float()
        norm = norms(current)
        if previous is not None and previous_norm is not None:
            product = torch.mul(previous, current, out=product)
            similarity[index] = cosine_from(product.sum(dim=1), previous_norm, norm)
        previous, previous_norm = current, norm
    return similarity


def mean_pairwise_cosine(frames: torch.Tensor) -> torch.Tensor:
    """Mean cosine over all pairs of two different frames, at each place: float32 (P,), of (T, P, D) float, T > 1.

    From the length of the sum of unit vectors, so that T frames cost T steps and not a step for each pair.
    """
    num_frames, places, dim = frames.shape
    total, own = torch.zeros((places, dim)), torch.zeros(places)
    for frame in frames:
        rows = frame.float()
        lengths = torch.linalg.vector_norm(rows, dim=1)
        scale = lengths.clamp_min(TINY)
        total.addcdiv_(rows, scale.unsqueeze(1))
        own += (lengths / scale).square()
    return (total.square().sum(dim=1) - own) / (num_frames * (num_frames - 1))


def cosine_from(dots: torch.Tensor, left_norms: torch.Tensor, right_norms: torch.Tensor) -> torch.Tensor:
    """Cosines from scalar products, which are overwritten, and :func:`norms` of one shape."""
    # Rounding can leave a cosine just outside its range; a threshold of 1 must still mean "drop nothing".
    return dots.div_(left_norms * right_norms).clamp_(-1.0, 1.0)
