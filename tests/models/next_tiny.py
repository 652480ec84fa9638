"""Tiny LLaVA-NeXT and LLaVA-NeXT-Video."""

from __future__ import annotations

from typing import Any

from family_tiny import Media, Tiny
from native_reference import QUESTION
from tiles_tiny import PINPOINTS, SIDE, SQUARE, TOKENS, anyres_inputs
from tiny_checkpoints import MEAN, STD

CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": SIDE // TOKENS,
}
SHORTEST = {
    "size": {"shortest_edge": SIDE},
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_center_crop": True,
    "image_mean": MEAN,
    "image_std": STD,
    "image_grid_pinpoints": PINPOINTS,
}


def inputs(native: Any, tokenizer: Any, media: Media) -> dict[str, Any]:
    return anyres_inputs(native, tokenizer, media, lambda text: f"USER: {text}{QUESTION} ASSISTANT:", after="\n")


def next_config(token: Any, text: dict[str, Any]) -> dict[str, Any]:
    return {
        "text_config": {"model_type": "llama", **text},
        "vision_config": CLIP,
        "image_token_index": token("<image>"),
        "image_grid_pinpoints": PINPOINTS,
    }


def video_config(token: Any, text: dict[str, Any]) -> dict[str, Any]:
    return {**next_config(token, text), "video_token_index": token("<video>")}


NEXT = Tiny("llava_next", ("<image>",), next_config, SHORTEST, inputs)
NEXT_VIDEO = Tiny(
    "llava_next_video",
    ("<image>", "<video>"),
    video_config,
    SHORTEST,
    inputs,
    {"video_preprocessor_config.json": {**SQUARE, "size": {"height": SIDE, "width": SIDE}}},
)
