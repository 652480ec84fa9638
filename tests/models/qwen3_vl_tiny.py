"""Tiny Qwen3-VL, dense and mixture of experts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from family_tiny import Media, Tiny, chatml, finish, normalised
from native_reference import fill_step

PATCH, MERGE, TEMPORAL, FACTOR = 16, 2, 2, 32
HALF = [0.5, 0.5, 0.5]
SHARED = {
    "patch_size": PATCH,
    "merge_size": MERGE,
    "temporal_patch_size": TEMPORAL,
    "image_mean": HALF,
    "image_std": HALF,
}


def patches(frames: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3), n even, to the processor's rows: one square after another."""
    values = normalised(frames, HALF, HALF)
    count, height, width, _ = frames.shape
    rows = []
    for step in range(0, count, TEMPORAL):
        for y in range(0, height, FACTOR):
            for x in range(0, width, FACTOR):
                for inner in range(MERGE * MERGE):
                    top, left = y + inner // MERGE * PATCH, x + inner % MERGE * PATCH
                    square = values[step : step + TEMPORAL, top : top + PATCH, left : left + PATCH]
                    rows.append(square.transpose(3, 0, 1, 2).ravel())
    return torch.from_numpy(np.stack(rows))


def inputs(native: Any, tokenizer: Any, media: Media) -> dict[str, Any]:
    """Every temporal step of a video stands behind its seconds, inside the video's own markers."""
    text = ""
    pixels: dict[str, list[torch.Tensor]] = {"image": [], "video": []}
    grids: dict[str, list[list[int]]] = {"image": [], "video": []}
    for kind, frames, item in media:
        # A still is given as two equal frames.
        filled = fill_step(frames)
        pixels[kind].append(patches(filled))
        steps, rows, columns = len(filled) // TEMPORAL, filled.shape[1] // FACTOR, filled.shape[2] // FACTOR
        grids[kind].append([steps, rows * MERGE, columns * MERGE])
        if kind == "image":
            text += "<|vision_start|>" + "<|image_pad|>" * rows * columns + "<|vision_end|>"
            continue
        seconds = [number / item.source_fps for number in item.indices]
        seconds += seconds[-1:] * (len(filled) - len(frames))
        text += "<|vision_start|>"
        for step in range(steps):
            middle = (seconds[2 * step] + seconds[2 * step + 1]) / 2
            text += f"<{middle:.1f} seconds><|vision_start|>" + "<|video_pad|>" * rows * columns + "<|vision_end|>"
        text += "<|vision_end|>"
    given: dict[str, Any] = {}
    for kind, key in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        if pixels[kind]:
            given[key] = torch.cat(pixels[kind])
            given[f"{kind}_grid_thw"] = torch.tensor(grids[kind])
    result = finish(tokenizer, chatml(text), **given)
    ids = result["input_ids"]
    types = (ids == native.config.image_token_id).int() + 2 * (ids == native.config.video_token_id).int()
    return {**result, "mm_token_type_ids": types}


def config(token: Any, text: dict[str, Any], **vision: Any) -> dict[str, Any]:
    return {
        "text_config": text,
        "vision_config": {
            "depth": 4,
            "hidden_size": 32,
            "num_heads": 4,
            "out_hidden_size": 64,
            "intermediate_size": 64,
            "patch_size": PATCH,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 2],
            **vision,
        },
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
        "tie_word_embeddings": False,
    }


ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3], "mrope_interleaved": True}
TEXT = {"num_hidden_layers": 4, "head_dim": 16, "rope_parameters": ROPE}
PROCESSOR = {**SHARED, "size": {"shortest_edge": FACTOR**2 * 4, "longest_edge": FACTOR**2 * 24}}
FILES = {
    "video_preprocessor_config.json": {
        **SHARED,
        "size": {"shortest_edge": FACTOR**2 * 4, "longest_edge": FACTOR**2 * 80},
    }
}


def config_without_levels(token: Any, text: dict[str, Any]) -> dict[str, Any]:
    given = config(token, text)
    given["vision_config"].pop("deepstack_visual_indexes")
    return given


QWEN3_VL = Tiny("qwen3_vl", (), config, PROCESSOR, inputs, FILES, TEXT)
QWEN3_VL_MOE = Tiny(
    "qwen3_vl_moe",
    (),
    config,
    PROCESSOR,
    inputs,
    FILES,
    {**TEXT, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
)

HYBRID = {
    **TEXT,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    "rope_parameters": {**ROPE, "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.25},
}
QWEN3_5 = Tiny("qwen3_5", (), config_without_levels, PROCESSOR, inputs, FILES, HYBRID, recurrent=True)
QWEN3_5_MOE = Tiny(
    "qwen3_5_moe",
    (),
    config_without_levels,
    PROCESSOR,
    inputs,
    FILES,
    {
        **HYBRID,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
    recurrent=True,
)
