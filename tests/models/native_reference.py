"""What transformers' whole model says to the same pixels, with inputs laid out here from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tiny_checkpoints import MEAN, STD

from tokcli.types import EncodedItem

QUESTION = "what happens in this video ?"
PATCH, MERGE, TEMPORAL = 14, 2, 2


def patches_by_index(frames: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3), n even, to the rows that the processors make: one index at a time, no reshaping."""
    count, height, width, _ = frames.shape
    mean = np.float32(MEAN) * np.float32(255)
    std = np.float32(STD) * np.float32(255)
    values = (frames.astype(np.float32) - mean) / std
    rows = []
    for step in range(count // TEMPORAL):
        for y in range(height // (PATCH * MERGE)):
            for x in range(width // (PATCH * MERGE)):
                for inner in range(MERGE * MERGE):
                    top = (y * MERGE + inner // MERGE) * PATCH
                    left = (x * MERGE + inner % MERGE) * PATCH
                    row = [
                        values[step * TEMPORAL + frame, top : top + PATCH, left : left + PATCH, channel].ravel()
                        for channel in range(3)
                        for frame in range(TEMPORAL)
                    ]
                    rows.append(np.concatenate(row))
    return torch.from_numpy(np.stack(rows))


def fill_step(frames: np.ndarray) -> np.ndarray:
    """Repeat the last frame once where the number of frames is odd."""
    return np.concatenate([frames, frames[-1:]]) if len(frames) % TEMPORAL else frames


def native_inputs(native: Any, tokenizer: Any, media: Sequence[tuple[str, np.ndarray, float | None]]) -> dict[str, Any]:
    """Arguments for the whole model: media are (kind, frames, seconds per step), in prompt order."""
    text = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    inputs: dict[str, Any] = {}
    pixels: dict[str, list[torch.Tensor]] = {"image": [], "video": []}
    grids: dict[str, list[list[int]]] = {"image": [], "video": []}
    seconds = []
    for kind, frames, per_step in media:
        frames = fill_step(frames)
        grid = [len(frames) // TEMPORAL, frames.shape[1] // PATCH, frames.shape[2] // PATCH]
        pixels[kind].append(patches_by_index(frames))
        grids[kind].append(grid)
        if kind == "video":
            seconds.append(per_step)
        count = grid[0] * grid[1] * grid[2] // MERGE**2
        text += "<|vision_start|>" + f"<|{kind}_pad|>" * count + "<|vision_end|>"
    text += QUESTION + "<|im_end|>\n<|im_start|>assistant\n"
    ids = torch.tensor([tokenizer(text).input_ids])
    types = (ids == native.config.image_token_id).int() + 2 * (ids == native.config.video_token_id).int()
    inputs.update(input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=types)
    for kind, key in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        if pixels[kind]:
            inputs[key] = torch.cat(pixels[kind])
            inputs[f"{kind}_grid_thw"] = torch.tensor(grids[kind])
    if seconds and native.config.model_type == "qwen2_5_vl":
        inputs["second_per_grid_ts"] = torch.tensor(seconds)
    return inputs


def original_positions(inputs: dict[str, Any], tokens_per_second: float | None) -> torch.Tensor:
    """The authors' rule, one token at a time: int64 (3, 1, S). ``tokens_per_second`` None: steps are 1 apart."""
    types = inputs["mm_token_type_ids"][0].tolist()
    grids = {
        kind: iter(inputs.get(key, torch.zeros(0, 3)).tolist())
        for kind, key in ((1, "image_grid_thw"), (2, "video_grid_thw"))
    }
    seconds = iter(inputs.get("second_per_grid_ts", torch.zeros(0)).tolist())
    positions: list[tuple[int, int, int]] = []
    start = 0
    while len(positions) < len(types):
        kind = types[len(positions)]
        if kind == 0:
            positions.append((start, start, start))
        else:
            steps, height, width = (int(value) for value in next(grids[kind]))
            apart = tokens_per_second * next(seconds) if tokens_per_second and kind == 2 else 1.0
            positions += [
                (start + int(np.float32(t) * np.float32(apart)), start + y, start + x)
                for t in range(steps)
                for y in range(height // MERGE)
                for x in range(width // MERGE)
            ]
        start = max(max(p) for p in positions) + 1
    return torch.tensor(positions).T[:, None]


@torch.no_grad()
def logits_after_deletion(
    native: Any, inputs: dict[str, Any], positions: torch.Tensor, features: torch.Tensor, keep: torch.Tensor
) -> torch.Tensor:
    """Embed the full sequence with ALL visual tokens, delete the dropped rows, run the language model alone.

    Args:
        positions: int64 (3, 1, S) of the full sequence.
        features: (N, D) all visual tokens in prompt order.
        keep: bool (N,).

    Returns:
        Logits (K, vocabulary) of what is left; no cache, no placeholders, explicit causal mask.
    """
    visual = inputs["mm_token_type_ids"][0] > 0
    embedded = native.get_input_embeddings()(inputs["input_ids"])[0].clone()
    embedded[visual] = features
    left = torch.ones_like(visual)
    left[visual] = keep
    count = int(left.sum())
    mask = torch.full((count, count), torch.finfo(torch.float32).min).triu(1)[None, None]
    hidden = native.model.language_model(
        inputs_embeds=embedded[left][None],
        position_ids=positions[:, :, left],
        attention_mask={"full_attention": mask} if native.config.model_type == "qwen2_5_vl" else mask,
        use_cache=False,
    ).last_hidden_state
    return native.lm_head(hidden)[0]


def keep_rows(item: EncodedItem, rows: Sequence[int]) -> EncodedItem:
    """The item with only these rows of its tokens."""
    from dataclasses import replace

    index = torch.tensor(list(rows), dtype=torch.long)
    kept = replace(
        item.kept,
        tokens=item.kept.tokens[index],
        coords=item.kept.coords[index],
        mass=item.kept.mass[index],
        source=item.kept.source[index],
        deepstack=None if item.kept.deepstack is None else item.kept.deepstack[index],
    )
    return replace(item, kept=kept)
