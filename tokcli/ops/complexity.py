"""How rich a picture is: how many directions its tokens have, and over how many of them attention spreads."""

from __future__ import annotations

import torch


def entropy_nats(weights: torch.Tensor) -> float:
    """Entropy of (n,) weights, scaled to sum to 1; those that are not positive have no part, and none gives 0."""
    positive = weights.double().clamp_min(0)
    shares = positive / positive.sum().clamp_min(torch.finfo(torch.float64).tiny)
    return float(-torch.special.xlogy(shares, shares).sum())


def effective_rank(tokens: torch.Tensor) -> float:
    """Roy and Vetterli (2007): exponential of the entropy of the singular values of (n, D) tokens, not centred.

    From 1, all tokens are multiples of one, to ``min(n, D)``, all directions weigh the same; 0 for no tokens or only
    zeros. In float64, at a cost that grows with the cube of the smaller of n and D.
    """
    matrix = tokens.double()
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    if matrix.numel() == 0:
        return 0.0
    # Squared singular values as eigenvalues of the smaller square matrix, at a fraction of the cost.
    squares = torch.linalg.eigvalsh(matrix @ matrix.T)
    noise = torch.finfo(torch.float64).eps * len(squares) * squares.max()
    singular = squares[squares > noise].sqrt()
    return float(torch.tensor(entropy_nats(singular)).exp()) if len(singular) else 0.0
