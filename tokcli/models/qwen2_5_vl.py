"""Qwen2.5-VL (arXiv:2502.13923): windowed tower, and temporal positions that follow the seconds of the clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tokcli.errors import ModelError
from tokcli.models.units import UnitAdapter

if TYPE_CHECKING:
    import torch

    from tokcli.types import EncodedItem


class Qwen25VL(UnitAdapter):
    """Adapter for checkpoints of the type ``qwen2_5_vl``."""

    model_class = "Qwen2_5_VLForConditionalGeneration"
    vision_settings = (
        "depth",
        "hidden_size",
        "hidden_act",
        "intermediate_size",
        "num_heads",
        "in_channels",
        "patch_size",
        "spatial_merge_size",
        "temporal_patch_size",
        "window_size",
        "fullatt_block_indexes",
        "out_hidden_size",
    )

    def signal_blocks(self, config: Any, depth: int) -> Sequence[int]:
        """``fullatt_block_indexes``; other blocks see a window. Raises ``ModelError`` if there is none."""
        whole = config.vision_config.fullatt_block_indexes
        if not whole:
            raise ModelError("no block of this tower attends to whole frames (fullatt_block_indexes is empty)")
        return sorted(int(block) for block in whole)

    def tower_order(self, config: Any, rows: int, columns: int) -> torch.Tensor:
        """Window by window."""
        from tokcli.models.signals import window_order

        return window_order(rows, columns, self._window_side(config))

    def windows(self, config: Any, places: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        side = self._window_side(config)
        down, across = (-(-size // side) for size in grid)
        step, row, column = places.unbind(dim=1)
        return (step * down + row // side) * across + column // side

    def _window_side(self, config: Any) -> int:
        """Tokens along the side of a window."""
        vision = config.vision_config
        return int(vision.window_size // vision.spatial_merge_size // vision.patch_size)

    def interval(self, item: EncodedItem, config: Any) -> float:
        """``tokens_per_second`` times the seconds between steps; 1 s where the item tells none, as in transformers."""
        if item.kind == "image":
            return 1.0
        seconds = 1.0 if item.seconds_per_step is None else item.seconds_per_step
        # In float32, as the models' own code computes it: the product is truncated to whole positions afterwards.
        return float(np.float32(config.vision_config.tokens_per_second) * np.float32(seconds))
