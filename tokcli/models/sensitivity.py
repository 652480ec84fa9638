"""What a projector makes of small changes of a token: one of its signals, which costs 128 passes of the projector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.func import functional_call

from tokcli.ops.sensitivity import DIRECTIONS, sensitivity

SEED = 0

Change = Callable[[torch.Tensor], torch.Tensor]


def call_sensitivity(project: Change, given: torch.Tensor, split: Change, join: Change) -> torch.Tensor:
    """Float32 (tokens,): how far the tokens move that come of what a projector was called with.

    Args:
        project: The projector in float32, with the tokens in order before the last dimension of its output.
        given: What it was called with.
        split: From that to rows (tokens, width), one behind the other all that goes into a token.
        join: The way back.
    """
    rows = split(given.float())
    # The same for all tokens, runs and machines.
    normal = np.random.Generator(np.random.PCG64(SEED)).standard_normal((DIRECTIONS, rows.shape[1]))
    directions = torch.from_numpy(normal / np.linalg.norm(normal, axis=1, keepdims=True)).to(rows)
    return sensitivity(rows, lambda moved: project(join(moved)).flatten(0, -2), directions)


def in_float32(module: torch.nn.Module) -> Change:
    """What ``module`` computes, in float32 whatever its weights are in."""
    weights = {name: weight.float() for name, weight in (*module.named_parameters(), *module.named_buffers())}
    return lambda given: functional_call(module, weights, (given,))


def rows_of_squares(side: int, patches: torch.Tensor) -> torch.Tensor:
    """(n, patches, C) of square pictures to (n * tokens, side * side * C): the patches of each token, row by row."""
    across = int(patches.shape[1] ** 0.5) // side
    return patches.unflatten(1, (across, side, across, side)).transpose(2, 3).flatten(3, 5).flatten(0, 2)


def squares_of_rows(side: int, shape: torch.Size, rows: torch.Tensor) -> torch.Tensor:
    """The way back, to patches of ``shape``."""
    across = int(shape[1] ** 0.5) // side
    return rows.view(shape[0], across, across, side, side, shape[2]).transpose(2, 3).reshape(shape)
