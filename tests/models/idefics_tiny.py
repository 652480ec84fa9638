"""Tiny Idefics3 and SmolVLM."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from family_tiny import Media, Tiny, finish, planes, resized
from native_reference import QUESTION
from tiny_checkpoints import MEAN, STD

from tokcli.types import EncodedItem

SIDE, PATCH, SCALE, LONGEST = 56, 7, 2, 140
TOKENS = SIDE // PATCH // SCALE
AROUND = "<fake_token_around_image>"
WHOLE = AROUND + "<global-img>" + "<image>" * TOKENS**2
PIXELS = {
    "size": {"longest_edge": LONGEST},
    "max_image_size": {"longest_edge": SIDE},
    "image_mean": MEAN,
    "image_std": STD,
    "resample": 3,
}
WORDS = {1: "one", 5: "five"}


def fitted(frames: np.ndarray) -> np.ndarray:
    """The longer side brought to its length, the other to an even number."""
    height, width = frames.shape[1:3]
    scale = LONGEST / max(height, width)
    size = [LONGEST if side == max(height, width) else int(side * scale) for side in (height, width)]
    return resized(frames, *(side + side % 2 for side in size))


def tiles(still: np.ndarray) -> tuple[int, int, list[np.ndarray]]:
    """(rows, columns, squares and the whole)."""
    inner = fitted(still)
    rows, columns = (math.ceil(side / SIDE) for side in inner.shape[1:3])
    canvas = resized(inner, rows * SIDE, columns * SIDE)
    corners = [(y * SIDE, x * SIDE) for y in range(rows) for x in range(columns)]
    squares = [canvas[0, y : y + SIDE, x : x + SIDE] for y, x in corners]
    return rows, columns, [*squares, resized(canvas, SIDE, SIDE)[0]]


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"


def inputs(native: Any, tokenizer: Any, media: Media, *, timed: bool) -> dict[str, Any]:
    videos = any(kind == "video" for kind, *_ in media)
    first_is_still = media[0][0] == "image" or not timed
    text = ("<|im_start|>" if timed else "<|begin_of_text|>") + "User:" + ("" if first_is_still else " ")
    assert videos or first_is_still
    pixels = []
    for kind, frames, item in media:
        if kind == "image":
            rows, columns, squares = tiles(frames)
            pixels += squares
            for row in range(rows):
                for column in range(columns):
                    text += f"{AROUND}<row_{row + 1}_col_{column + 1}>" + "<image>" * TOKENS**2
                text += "\n"
            text += "\n" + WHOLE + AROUND
            continue
        pixels += list(resized(fitted(frames), SIDE, SIDE))
        if not timed:
            text += (WHOLE + AROUND) * len(frames)
            continue
        minutes = int(item.duration_seconds) // 60
        text += f"You are provided the following series of {WORDS[len(frames)]} frames from a "
        text += f"0:{minutes:02d}:{int(item.duration_seconds) % 60:02d} [H:MM:SS] video.\n"
        for number in item.indices:
            text += f"\nFrame from {clock(number / item.source_fps)}:{WHOLE}{AROUND}"
        text += "\n\n"
    text += f"{QUESTION}<end_of_utterance>\nAssistant:"
    return finish(tokenizer, text, pixel_values=planes(np.stack(pixels))[None])


def config(token: Any, text: dict[str, Any]) -> dict[str, Any]:
    return {
        "text_config": {"model_type": "llama", **text},
        "vision_config": {
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "image_size": SIDE,
            "patch_size": PATCH,
        },
        "image_token_id": token("<image>"),
        "scale_factor": SCALE,
        "pad_token_id": text["pad_token_id"],
    }


def in_prompt(keep: np.ndarray, item: EncodedItem) -> np.ndarray:
    """A mask over an item's tokens as they are cached, tile by tile as they are read."""
    if item.kind == "video":
        return keep
    _, height, width = item.views[0].grid
    grid = keep[: height * width].reshape(height // TOKENS, TOKENS, width // TOKENS, TOKENS)
    return np.concatenate([grid.swapaxes(1, 2).ravel(), keep[height * width :]])


MARKERS = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
SPECIAL = ("<image>", AROUND, "<end_of_utterance>", "<global-img>", *MARKERS)
IDEFICS3 = Tiny("idefics3", SPECIAL, config, PIXELS, partial(inputs, timed=False), in_prompt=in_prompt)
SMOLVLM = Tiny("smolvlm", SPECIAL, config, PIXELS, partial(inputs, timed=True), in_prompt=in_prompt)
