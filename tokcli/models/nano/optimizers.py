"""How models this small step: Muon for matrices, AdamW for the rest.

Muon's steps are equally large in all directions of a matrix. Ten minutes of it get the tower over the plateau before
shapes and characters, where AdamW still was after as many steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that is applied five times, as torch has them: Jordan et al., "Muon", 2024."""


class Muon(torch.optim.Optimizer):
    """``torch.optim.Muon`` with Nesterov's momentum and ``match_rms_adamw``, but in float32.

    torch computes in bfloat16, which a CPU that emulates it does at a thirtieth of its speed.
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever given
        """Step every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                momentum = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - MOMENTUM)
                update = orthogonalized(matrix.grad.lerp(momentum, MOMENTUM))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(matrix.shape)))


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """Return a matrix of the same singular vectors, whose singular values are about 1: between 0.5 and 1.5."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def muon_and_adam(
    matrices: Iterable[torch.nn.Parameter], others: Iterable[torch.nn.Parameter], peak: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Return optimizers whose groups have a ``peak``, the highest rate of learning: three times ``peak`` for Muon.

    ``matrices`` may hold other parameters too, which go to AdamW.
    """
    listed = list(matrices)
    flat = [*(parameter for parameter in listed if parameter.ndim != 2), *others]
    square = [parameter for parameter in listed if parameter.ndim == 2]
    return [
        Muon([{"params": square, "peak": 3 * peak}], weight_decay=weight_decay),
        torch.optim.AdamW([{"params": flat, "peak": peak}], weight_decay=weight_decay, betas=(0.9, 0.95)),
    ]
