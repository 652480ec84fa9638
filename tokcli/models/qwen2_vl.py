"""Qwen2-VL (arXiv:2409.12191): one position per temporal step, whatever the frame rate."""

from __future__ import annotations

from tokcli.models.units import UnitAdapter


class Qwen2VL(UnitAdapter):
    """Adapter for checkpoints of the type ``qwen2_vl``."""

    model_class = "Qwen2VLForConditionalGeneration"
    vision_settings = (
        "depth",
        "embed_dim",
        "hidden_size",
        "hidden_act",
        "mlp_ratio",
        "num_heads",
        "in_channels",
        "patch_size",
        "spatial_merge_size",
        "temporal_patch_size",
    )
