"""Tiny models whose stills are cut into tiles: LLaVA-OneVision and InternVL."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from family_tiny import Media, Tiny, chatml, finish, planes, resized
from native_reference import QUESTION
from tiny_checkpoints import MEAN, STD

SIDE, PATCH = 28, 7
TOKENS = SIDE // PATCH
PINPOINTS = [[28, 56], [56, 28], [56, 56], [28, 84], [84, 28], [84, 84], [112, 84]]
SQUARE = {"size": {"height": SIDE, "width": SIDE}, "image_mean": MEAN, "image_std": STD, "resample": 3}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": PATCH,
    "vision_use_head": False,
}


def anyres(still: np.ndarray) -> torch.Tensor:
    """(1 + tiles, 3, side, side): the whole, then the tiles of the padded canvas, one pixel block after another."""
    from transformers.image_processing_utils import select_best_resolution

    height, width = still.shape[1:3]
    rows, columns = select_best_resolution((height, width), PINPOINTS)
    if columns / width < rows / height:
        size = (min(math.ceil(height * (columns / width)), rows), columns)
    else:
        size = (rows, min(math.ceil(width * (rows / height)), columns))
    inner = resized(still, *size)[0]
    canvas = np.zeros((rows, columns, 3), dtype=np.uint8)
    top, left = (rows - size[0]) // 2, (columns - size[1]) // 2
    canvas[top : top + size[0], left : left + size[1]] = inner
    tiles = [canvas[y : y + SIDE, x : x + SIDE] for y in range(0, rows, SIDE) for x in range(0, columns, SIDE)]
    return planes(np.stack([resized(still, SIDE, SIDE)[0], *tiles]))


def padded(tiles: list[torch.Tensor]) -> torch.Tensor:
    """Stills with different numbers of tiles in one tensor (stills, most, 3, side, side), as processors pad them."""
    most = max(len(part) for part in tiles)
    return torch.stack([torch.cat([part, part.new_zeros(most - len(part), *part.shape[1:])]) for part in tiles])


def anyres_inputs(
    native: Any,
    tokenizer: Any,
    media: Media,
    prompt: Callable[[str], str],
    *,
    after: str = "",
    video_newlines: int = 0,
) -> dict[str, Any]:
    """Stills as ``anyres`` cuts them and clips of single squares, in the order of the prompt.

    ``after`` follows each of them; a clip ends with ``video_newlines`` further tokens.
    """
    text, stills, sizes, clips = "", [], [], []
    for kind, frames, _ in media:
        if kind == "image":
            stills.append(anyres(frames))
            sizes.append(list(frames.shape[1:3]))
            with torch.no_grad():
                packed = native.model.get_image_features(
                    pixel_values=stills[-1][None], image_sizes=torch.tensor(sizes[-1:]), return_dict=True
                ).pooler_output
            text += "<image>" * len(packed[0]) + after
        else:
            clips.append(planes(resized(frames, SIDE, SIDE)))
            text += "<video>" * (len(frames) * (TOKENS // 2) ** 2 + video_newlines) + after
    return finish(
        tokenizer,
        prompt(text),
        pixel_values=padded(stills) if stills else None,
        image_sizes=torch.tensor(sizes) if sizes else None,
        pixel_values_videos=torch.stack(clips) if clips else None,
    )


def onevision_inputs(native: Any, tokenizer: Any, media: Media) -> dict[str, Any]:
    def prompt(text: str) -> str:
        return f"<|im_start|>user {text}\n{QUESTION}<|im_end|><|im_start|>assistant\n"

    return anyres_inputs(native, tokenizer, media, prompt, video_newlines=1)


def onevision_config(token: Any, text: dict[str, Any]) -> dict[str, Any]:
    return {
        "text_config": {"model_type": "qwen2", **text},
        "vision_config": SIGLIP,
        "image_token_index": token("<image>"),
        "video_token_index": token("<video>"),
        "image_grid_pinpoints": PINPOINTS,
        "vision_aspect_ratio": "anyres_max_6",
    }


ONEVISION = Tiny(
    "llava_onevision",
    ("<image>", "<video>"),
    onevision_config,
    {**SQUARE, "image_grid_pinpoints": PINPOINTS},
    onevision_inputs,
    {"video_preprocessor_config.json": SQUARE},
)


def canvas(still: np.ndarray) -> torch.Tensor:
    """(tiles, 3, side, side): those of the stretched still, then the whole if there are several."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    columns, rows = get_optimal_tiled_canvas(tuple(still.shape[1:3]), (SIDE, SIDE), 1, 6)
    stretched = resized(still, rows * SIDE, columns * SIDE)[0]
    tiles = [
        stretched[y * SIDE : (y + 1) * SIDE, x * SIDE : (x + 1) * SIDE] for y in range(rows) for x in range(columns)
    ]
    return planes(np.stack([*tiles, *([resized(still, SIDE, SIDE)[0]] if len(tiles) > 1 else [])]))


def internvl_inputs(native: Any, tokenizer: Any, media: Media) -> dict[str, Any]:
    text, pixels = "", []
    tile = "<IMG_CONTEXT>" * (TOKENS // 2) ** 2
    for kind, frames, _ in media:
        if kind == "image":
            pixels.append(canvas(frames))
            text += f"<img>{tile * len(pixels[-1])}</img>\n"
        else:
            pixels.append(planes(resized(frames, SIDE, SIDE)))
            text += "\n".join(f"Frame{number + 1}: <img>{tile}</img>" for number in range(len(frames))) + "\n"
    return finish(tokenizer, chatml(text), pixel_values=torch.cat(pixels))


def internvl_config(token: Any, text: dict[str, Any]) -> dict[str, Any]:
    return {
        "text_config": {"model_type": "qwen2", **text},
        "vision_config": {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "image_size": [SIDE, SIDE],
            "patch_size": [PATCH, PATCH],
        },
        "image_token_id": token("<IMG_CONTEXT>"),
        "image_seq_length": 4,
        "tie_word_embeddings": False,
    }


INTERNVL = Tiny(
    "internvl",
    ("<IMG_CONTEXT>", "<img>", "</img>"),
    internvl_config,
    {**SQUARE, "crop_to_patches": True, "min_patches": 1, "max_patches": 6},
    internvl_inputs,
    {"video_preprocessor_config.json": SQUARE},
)
