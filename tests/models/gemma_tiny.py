"""A tiny Gemma 3, with a window shorter than the prompts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from family_tiny import Media, Tiny, finish, planes, resized
from native_reference import QUESTION
from tiles_tiny import SIDE, SIGLIP, SQUARE

WINDOW = 12
START, END, SOFT = "<start_of_image>", "<end_of_image>", "<image_soft_token>"
SPECIAL = (START, END, SOFT, "<start_of_turn>", "<end_of_turn>")
PICTURE = f"\n\n{START}{SOFT * 4}{END}\n\n"


def inputs(native: Any, tokenizer: Any, media: Media) -> dict[str, Any]:
    frames = np.concatenate([resized(frames, SIDE, SIDE) for _, frames, _ in media])
    text = f"<start_of_turn>user\n{PICTURE * len(frames)}{QUESTION}<end_of_turn>\n<start_of_turn>model\n"
    given = finish(tokenizer, text, pixel_values=planes(frames))
    return {**given, "token_type_ids": (given["input_ids"] == native.config.image_token_id).long()}


def config(token: Any, text: dict[str, Any]) -> dict[str, Any]:
    own = {
        "model_type": "gemma3_text",
        "num_hidden_layers": 4,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    }
    return {
        "text_config": {**text, **own},
        "vision_config": SIGLIP,
        "mm_tokens_per_image": 4,
        "boi_token_index": token(START),
        "eoi_token_index": token(END),
        "image_token_index": token(SOFT),
    }


def hidden(native: Any, ids: torch.Tensor, left: torch.Tensor) -> dict[str, torch.Tensor]:
    """Masks (1, 1, S, S) of both kinds of layers: pictures see themselves, windows count what is left."""
    soft = (ids == native.config.image_token_id).tolist()
    left_before = left.cumsum(0).tolist()
    seen = {kind: torch.eye(len(ids), dtype=torch.bool) for kind in ("full_attention", "sliding_attention")}
    for query in range(len(ids)):
        for key in range(len(ids)):
            between = range(min(query, key), max(query, key) + 1)
            if left[key] and (key <= query or all(soft[place] for place in between)):
                seen["full_attention"][query, key] = True
                seen["sliding_attention"][query, key] |= left_before[query] - left_before[key] < WINDOW
    lowest = torch.finfo(torch.float32).min
    return {kind: torch.zeros(mask.shape).masked_fill(~mask, lowest)[None, None] for kind, mask in seen.items()}


GEMMA3 = Tiny("gemma3", SPECIAL, config, SQUARE, inputs, hidden=hidden)
