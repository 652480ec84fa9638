"""Qwen3.5, dense and mixture of experts: Qwen3-VL's tower without DeepStack, and a language model in part recurrent.

Most layers of the language model have no attention but a state that runs through the sequence. So what is computed of
an item can't be shared by many prompts about it: each prompt is answered by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokcli.models.grid import GridAdapter
from tokcli.models.qwen3_vl import Qwen3VL

if TYPE_CHECKING:
    import torch

    from tokcli.types import EncodedItem


class Qwen35(Qwen3VL):
    """Adapter for checkpoints of the type ``qwen3_5``."""

    model_class = "Qwen3_5ForConditionalGeneration"
    takes_all_rows = "tokcli doesn't take it apart"
    stored = "tokens, grid, frame indices and rate (seconds are text)"
    limits = (
        "layers with a recurrent state: prompts about one item can't share its prefill, and eval needs full attention",
        "a dropped token is one that the state never saw, not one that is hidden by a mask",
    )
    vision_settings = tuple(name for name in Qwen3VL.vision_settings if name != "deepstack_visual_indexes")

    def deepstack_levels(self, config: Any) -> int:
        return 0

    def encoder_outputs(self, items: Sequence[EncodedItem], like: torch.Tensor) -> dict[str, Any]:
        return GridAdapter.encoder_outputs(self, items, like)


class Qwen35Moe(Qwen35):
    """Adapter for checkpoints of the type ``qwen3_5_moe``."""

    model_class = "Qwen3_5MoeForConditionalGeneration"
