"""The bundled model as transformers alone runs it: whole, from pixels, with a prompt made by its own chat template."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from native_reference import fill_step, patches_by_index

import tokcli.models
from tokcli.models.preprocess import resize_frames
from tokcli.models.sizing import smart_resize
from tokcli.synthetic import Scene, render_times

CHECKPOINT = Path(tokcli.models.__file__).parent / "nano" / "checkpoint"


@cache
def native() -> tuple[Any, Any]:
    """Model (float32) and tokenizer, by the Auto classes."""
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINT, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(CHECKPOINT)


@dataclass(frozen=True)
class Medium:
    """What one scene gives the model."""

    kind: str
    patches: torch.Tensor
    grid: tuple[int, int, int]
    """In patches."""
    seconds_per_step: float


def medium_of(scene: Scene, fps: float = 1.0) -> Medium:
    """A clip sampled at ``fps``, or a still; pixels as rendered."""
    ticks = np.arange(0, scene.duration_seconds - 1e-6, 1 / fps) if not scene.still else np.zeros(1)
    frames = np.stack(list(render_times(scene, (np.floor(ticks * scene.fps + 1e-6) / scene.fps).tolist())))
    return medium_of_frames("image" if scene.still else "video", frames, fps)


def medium_of_frames(kind: str, frames: np.ndarray, fps: float) -> Medium:
    """Frames uint8 (n, H, W, 3) taken at ``fps``, or a still."""
    size = smart_resize(*frames.shape[1:3], 28, 112 * 112, 224 * 224)
    frames = fill_step(resize_frames(frames, size))
    grid = (len(frames) // 2, size[0] // 14, size[1] // 14)
    return Medium(kind, patches_by_index(frames), grid, 2 / fps)


def answer(medium: Medium, question: str, scheme: str = "original") -> str:
    """The model's greedy answer, by ``generate`` from pixels."""
    model, tokenizer = native()
    message = {"role": "user", "content": [{"type": medium.kind}, {"type": "text", "text": question}]}
    text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    pad, (t, h, w) = f"<|{medium.kind}_pad|>", medium.grid
    ids = torch.tensor([tokenizer.encode(text.replace(pad, pad * (t * h * w // 4)))])
    is_visual = ids == tokenizer.convert_tokens_to_ids(pad)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["mm_token_type_ids"] = is_visual.long() * (1 if medium.kind == "image" else 2)
    if medium.kind == "image":
        inputs |= {"pixel_values": medium.patches, "image_grid_thw": torch.tensor([medium.grid])}
    else:
        inputs |= {"pixel_values_videos": medium.patches, "video_grid_thw": torch.tensor([medium.grid])}
        inputs["second_per_grid_ts"] = torch.tensor([medium.seconds_per_step])
    if scheme == "original":
        inputs["position_ids"] = original_positions(is_visual[0].tolist(), medium)[:, None]
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=12)
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def original_positions(is_visual: list[bool], medium: Medium) -> torch.Tensor:
    """int64 (3, S) by the rule of the Qwen2-VL paper, counted one token at a time."""
    _, rows, columns = (side // 2 if index else side for index, side in enumerate(medium.grid))
    per_step = 2 * medium.seconds_per_step if medium.kind == "video" else 1
    positions, start, following = [], -1, 0
    for place, visual in enumerate(is_visual):
        if visual:
            start = place if start < 0 else start
            step, rest = divmod(place - start, rows * columns)
            here = (start + int(step * per_step), start + rest // columns, start + rest % columns)
        else:
            here = (following,) * 3
        positions.append(here)
        following = max(following, *here, -1) + 1 if not visual else max(following, max(here) + 1)
    return torch.tensor(positions).T
