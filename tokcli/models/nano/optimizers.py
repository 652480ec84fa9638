"""How models this small step: Muon for matrices, AdamW for the rest.

Muon's steps are equally large in all directions of a matrix. Ten minutes of it get the tower over the plateau before
shapes and characters, where AdamW still was after as many steps.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch


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
        torch.optim.Muon(
            [{"params": square, "peak": 3 * peak}], weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW([{"params": flat, "peak": peak}], weight_decay=weight_decay, betas=(0.9, 0.95)),
    ]
