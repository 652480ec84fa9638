"""Help in training: losses beside that of the answers, for insights of which half earns nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

if TYPE_CHECKING:
    from tokcli.models.nano.language import Prompt


class Help(Protocol):
    """A loss on what goes on inside the language model."""

    weight: float
    """Against the loss of the answers."""

    def loss(self, prompts: Sequence[Prompt]) -> torch.Tensor:
        """Return the mean over ``prompts``, which a forward pass has just been made with."""

    def close(self) -> None:
        """Leave the model as it was."""


class LayerProbe(nn.Module):
    """Base of linear probes of one layer's hidden states; their weights go to the optimizers too."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._hidden: torch.Tensor | None = None
        self._hook = layer.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._hidden = output[0] if isinstance(output, tuple) else output

    def take_hidden(self) -> torch.Tensor:
        """Hand out the hidden states of the last forward pass, float32 (prompts, S, C), once."""
        assert self._hidden is not None
        hidden, self._hidden = self._hidden.float(), None
        return hidden

    def close(self) -> None:
        """Leave the layer as it was."""
        self._hook.remove()
