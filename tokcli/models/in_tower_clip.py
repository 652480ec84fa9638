"""CLIP's and SigLIP's towers taken apart: learned positions are in the patches, every block sees the whole frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tokcli.models.in_tower import TowerBlocks


class ClipBlocks(TowerBlocks):
    """A CLIP tower, or another whose blocks have its names."""

    def __init__(
        self,
        layers: Any,
        run: int,
        grid: tuple[int, int],
        embed: Callable[[torch.Tensor], torch.Tensor],
        project: Callable[[torch.Tensor], torch.Tensor],
        leading: int = 0,
        unit: int = 1,
    ) -> None:
        """``embed`` is given uint8 frames, ``project`` rows (n, unit * C)."""
        self.leading, self.unit = leading, unit
        super().__init__(len(layers), run, grid)
        self._layers, self._embed, self._project = layers, embed, project

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        return self._embed(pixels)

    def heads(self, block: int, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        layer = self._layers[block]
        attention, normed = layer.self_attn, layer.layer_norm1(states)
        query, key, value = (
            project(normed).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        return query, key, value

    def values(self, block: int, states: torch.Tensor) -> torch.Tensor:
        layer = self._layers[block]
        value: torch.Tensor = layer.self_attn.v_proj(layer.layer_norm1(states))
        return value.unflatten(2, (layer.self_attn.num_heads, -1)).transpose(1, 2)

    def scale(self, block: int) -> float:
        return float(self._layers[block].self_attn.scale)

    def leave(self, block: int, attended: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = self._layers[block].self_attn.out_proj(attended)
        return added

    def mlp(self, block: int, states: torch.Tensor) -> torch.Tensor:
        layer = self._layers[block]
        added: torch.Tensor = layer.mlp(layer.layer_norm2(states))
        return added

    def project(self, states: torch.Tensor) -> torch.Tensor:
        return self._project(states)
