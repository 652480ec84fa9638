"""A help in training: tokens of a shot must know what the shot before showed.

"Which shape comes after the ring?" takes the ring's place in time and then what is next to it; the language model got
as far as naming some other shape. If the tokens that show a shape have looked back at what was there before, while the
clip is read, both questions are one look: at the ring's tokens, or at those that come after a ring. A linear probe that
is thrown away afterwards rewards that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tokcli.models.nano.helps import LayerProbe
from tokcli.synthetic import SHAPES

if TYPE_CHECKING:
    from tokcli.models.nano.bank import SeenClip
    from tokcli.models.nano.language import Prompt


def shapes_before(clip: SeenClip) -> np.ndarray | None:
    """Return, for every token of a clip of several shots that shows a shape, which shape the shot before showed.

    int64 (N,): 0 for none, otherwise 1 + its number in ``SHAPES``; -1 for tokens without a shape. None for clips of one
    shot, and for those that show a shape twice.
    """
    shapes = [item.shape for item in clip.scene.objects]
    if len(clip.scene.shots) < 2 or len(set(shapes)) < len(shapes) or not clip.shown:
        return None
    before = np.full(1 + len(SHAPES), -1)
    for index, shape in enumerate(shapes):
        before[1 + SHAPES.index(shape)] = 1 + SHAPES.index(shapes[index - 1]) if index else 0
    return np.where(clip.shown["shape"] > 0, before[clip.shown["shape"]], -1)


class SequenceProbe(LayerProbe):
    """Reads the shape before from the hidden states of one layer; call ``loss`` right after a forward pass."""

    weight = 0.3

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__(layer)
        self.read = nn.Linear(width, 1 + len(SHAPES))

    def loss(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Return the mean error over the tokens of the last batch that have a shot; 0 where none has."""
        hidden = self.take_hidden()
        scores, labels = [], []
        for row, prompt in enumerate(prompts):
            if (before := shapes_before(prompt.clip)) is not None:
                scores.append(self.read(hidden[row, prompt.visual]))
                labels.append(torch.from_numpy(before[prompt.kept]).to(hidden.device))
        if not labels or bool((torch.cat(labels) < 0).all()):
            return hidden.new_zeros(())
        return F.cross_entropy(torch.cat(scores), torch.cat(labels), ignore_index=-1)
