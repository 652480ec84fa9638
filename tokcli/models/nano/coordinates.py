"""A help in training: early layers of the language model must know where and when each visual token is.

Rotary positions tell distances between tokens only. Where a token is follows from its distance to the start of the
vision block, but no answer rewards half of that insight: questions of place were still at chance after the 700 steps
without a probe that were tried. Two linear probes that are thrown away afterwards reward it: they read a token's
coordinates from its hidden state half-way through the layers, and the extent of the whole block from the text behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from tokcli.models.nano.helps import LayerProbe

if TYPE_CHECKING:
    from tokcli.models.nano.language import Prompt

SCALE = (32.0, 4.0, 4.0)
"""By which t, y and x are divided, for errors of like size."""


class CoordinateProbe(LayerProbe):
    """Reads coordinates from the hidden states of one layer; call ``loss`` right after a forward pass."""

    weight = 1.0

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__(layer)
        self.of_token, self.of_block = nn.Linear(width, 3), nn.Linear(width, 3)

    def loss(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Return the mean error over the visual tokens of the last batch, and over the text behind them."""
        hidden = self.take_hidden()
        scale = torch.tensor(SCALE, device=hidden.device)
        total = hidden.new_zeros(())
        for row, prompt in enumerate(prompts):
            # Text before the block is numbered from 0, so its length is the block's origin.
            places = torch.from_numpy(prompt.positions[:, prompt.visual] - prompt.visual.start).to(hidden).T / scale
            behind = hidden[row, prompt.visual.stop : len(prompt.ids)]
            extent = places.amax(0).expand(len(behind), 3)
            total = total + F.smooth_l1_loss(self.of_token(hidden[row, prompt.visual]), places)
            total = total + F.smooth_l1_loss(self.of_block(behind), extent)
        return total / len(prompts)
