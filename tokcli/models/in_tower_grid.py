"""Qwen2-VL's and Qwen2.5-VL's towers taken apart: rotary positions, patches merged by fours, windows.

A row is the square of patches that becomes a token, so only whole tokens merge and go. A row's patches turn by the
place that it has, so it keeps the positions of the one that it is anchored on. Windows hold what is left of them.
"""

from __future__ import annotations

from typing import Any

import torch

from tokcli.models.in_tower import TowerBlocks
from tokcli.models.settings import Settings


class GridBlocks(TowerBlocks):
    """A tower that takes rows of patches with a grid."""

    def __init__(
        self,
        visual: Any,
        settings: Settings,
        grid: tuple[int, int],
        whole: tuple[int, ...],
        windows: torch.Tensor | None,
    ) -> None:
        """``windows`` is int64 (N,), a number for the window that each row is in, line by line; None without any."""
        if windows is not None:
            self.order = torch.argsort(windows, stable=True)
        depth = len(visual.blocks)
        super().__init__(depth, depth, grid, whole)
        self.unit = settings.merge_size**2
        self._visual, self._settings = visual, settings
        self._windows = None if windows is None else windows[self.order]
        self._positions = _positions(grid, settings.merge_size, self.order)
        self._turns: tuple[torch.Tensor, torch.Tensor] | None = None

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        from tokcli.models.preprocess import to_patches

        patches: torch.Tensor = self._visual.patch_embed(to_patches(pixels, self._settings).to(self._visual.dtype))
        if self._turns is None:
            positions = self._positions.to(patches.device)
            cos, sin = self._visual.rotary_pos_emb(patches, positions)
            self._turns = cos.float().unflatten(0, (-1, self.unit)), sin.float().unflatten(0, (-1, self.unit))
        frames = patches.view(-1, self.shape.rows, self.unit, patches.shape[1])
        if self.order is not None:
            frames = frames[:, self.order.to(frames.device)]
        return frames.flatten(1, 2)

    def heads(self, block: int, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        layer = self._visual.blocks[block]
        joined = layer.attn.qkv(layer.norm1(states)).unflatten(2, (3, layer.attn.num_heads, -1))
        query, key, value = joined.permute(2, 0, 3, 1, 4)
        return query, key, value

    def values(self, block: int, states: torch.Tensor) -> torch.Tensor:
        layer = self._visual.blocks[block]
        weight, bias = (part.chunk(3)[2] for part in (layer.attn.qkv.weight, layer.attn.qkv.bias))
        value = torch.nn.functional.linear(layer.norm1(states), weight, bias)
        return value.unflatten(2, (layer.attn.num_heads, -1)).transpose(1, 2)

    def rotate(self, values: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
        assert self._turns is not None
        cos, sin = (table[anchors].flatten(1, 2).unsqueeze(1) for table in self._turns)
        plain = values.float()
        left, right = plain.chunk(2, dim=-1)
        return (plain * cos + torch.cat([-right, left], dim=-1) * sin).to(values.dtype)

    def scale(self, block: int) -> float:
        return float(self._visual.blocks[block].attn.scaling)

    def segments(self, block: int, anchors: torch.Tensor) -> list[int] | None:
        if self._windows is None or block in self.shape.blocks:
            return None
        windows = self._windows.to(anchors.device)[anchors]
        frames = torch.arange(len(windows), device=windows.device).unsqueeze(1) * (int(self._windows.max()) + 1)
        _, counts = torch.unique_consecutive((windows + frames).flatten(), return_counts=True)
        return [count * self.unit for count in counts.tolist()]

    def leave(self, block: int, attended: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = self._visual.blocks[block].attn.proj(attended)
        return added

    def mlp(self, block: int, states: torch.Tensor) -> torch.Tensor:
        layer = self._visual.blocks[block]
        added: torch.Tensor = layer.mlp(layer.norm2(states))
        return added

    def project(self, states: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self._visual.merger(states.unflatten(1, (self.unit, -1)).flatten(0, 1))
        return tokens


def _positions(grid: tuple[int, int], merge: int, order: torch.Tensor | None) -> torch.Tensor:
    """int64 (patches, 2): line and column of each patch of a frame, in the order that the tower has them."""
    rows, columns = grid
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    if order is not None:
        places = places[order]
    inner = torch.cartesian_prod(torch.arange(merge), torch.arange(merge))
    return (places.unsqueeze(1) * merge + inner).flatten(0, 1)
