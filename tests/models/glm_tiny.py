"""Tiny GLM-4.1V, GLM-4.5V and GLM-4.6V."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from family_tiny import Media, Tiny, finish
from native_reference import MERGE, PATCH, QUESTION, TEMPORAL, fill_step, patches_by_index
from tiny_checkpoints import FACTOR, MEAN, STD

MARKERS = (
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<|image|>",
    "<|video|>",
)
SHARED = {
    "patch_size": PATCH,
    "merge_size": MERGE,
    "temporal_patch_size": TEMPORAL,
    "image_mean": MEAN,
    "image_std": STD,
}


def inputs(native: Any, tokenizer: Any, media: Media, *, seconds_text: Callable[[float], str]) -> dict[str, Any]:
    """Every temporal step of a video is a still, followed by the seconds of its first frame."""
    text = "[gMASK]<sop><|user|>\n"
    pixels: dict[str, list[torch.Tensor]] = {"image": [], "video": []}
    grids: dict[str, list[list[int]]] = {"image": [], "video": []}
    for kind, frames, item in media:
        filled = fill_step(frames)
        pixels[kind].append(patches_by_index(filled))
        steps, rows, columns = len(filled) // TEMPORAL, filled.shape[1] // FACTOR, filled.shape[2] // FACTOR
        grids[kind].append([steps, rows * MERGE, columns * MERGE])
        if kind == "image":
            text += "<|begin_of_image|>" + "<|image|>" * rows * columns + "<|end_of_image|>"
            continue
        text += "<|begin_of_video|>"
        for number in item.indices[::TEMPORAL]:
            step = "<|begin_of_image|>" + "<|video|>" * rows * columns + "<|end_of_image|>"
            text += step + seconds_text(number / item.source_fps)
        text += "<|end_of_video|>"
    given: dict[str, Any] = {}
    for kind, key in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        if pixels[kind]:
            given[key] = torch.cat(pixels[kind])
            given[f"{kind}_grid_thw"] = torch.tensor(grids[kind])
    result = finish(tokenizer, f"{text}{QUESTION}<|assistant|>\n", **given)
    ids = result["input_ids"]
    videos = ids == native.config.video_token_id
    types = (ids == native.config.image_token_id).int() + 2 * videos.int()
    return {**result, "input_ids": ids.masked_fill(videos, native.config.image_token_id), "mm_token_type_ids": types}


def config(token: Any, text: dict[str, Any]) -> dict[str, Any]:
    return {
        "text_config": text,
        "vision_config": {
            "depth": 3,
            "hidden_size": 32,
            "num_heads": 4,
            "out_hidden_size": 64,
            "intermediate_size": 64,
            "patch_size": PATCH,
            "image_size": 112,
        },
        "image_token_id": token("<|image|>"),
        "video_token_id": token("<|video|>"),
        "image_start_token_id": token("<|begin_of_image|>"),
        "image_end_token_id": token("<|end_of_image|>"),
        "video_start_token_id": token("<|begin_of_video|>"),
        "video_end_token_id": token("<|end_of_video|>"),
    }


def tiny(family: str, seconds_text: Callable[[float], str], sections: Sequence[int] = (2, 3, 3), **text: Any) -> Tiny:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [*sections]}
    processor = {**SHARED, "size": {"shortest_edge": FACTOR**2 * 8, "longest_edge": FACTOR**2 * 48}}
    video = {**SHARED, "size": {"shortest_edge": FACTOR**2 * 4, "longest_edge": FACTOR**2 * 80}}
    return Tiny(
        family,
        MARKERS,
        config,
        processor,
        partial(inputs, seconds_text=seconds_text),
        {"video_preprocessor_config.json": video},
        {"rope_parameters": rope, **text},
    )


GLM4V = tiny("glm4v", lambda seconds: str(int(seconds)))
GLM45V = tiny(
    "glm4v_moe",
    lambda seconds: str(int(seconds)),
    (1, 1, 2),  # half of the width is rotated
    num_hidden_layers=3,
    moe_intermediate_size=32,
    n_routed_experts=4,
    num_experts_per_tok=2,
)
GLM46V = tiny("glm46v", lambda seconds: f"{seconds:.1f} seconds")
