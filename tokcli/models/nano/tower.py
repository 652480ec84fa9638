"""First stage: the vision tower alone learns what covers each token.

Its outputs are trained against the word embeddings of the language model: a token that shows a red circle moving left
points along "red", "circle" and "left" at once. The language model then finds words that it can match and repeat, which
is most of what it has to learn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from tokcli.models.nano.architecture import PIXELS
from tokcli.models.nano.clips import LABELS, dense_labels, frames_of, patches_of, tower_size
from tokcli.synthetic import make_scene

FIRST_SEED = 1_000_000_000
"""Of the scenes that the tower is trained on; what users render starts from small numbers, and is new to the model."""
CLIPS_PER_STEP = 32
NOTHING_WEIGHT = 0.15
"""Most tokens show nothing; they count that much less."""
CONTRAST = 2.0
"""Scores are this times the product of token and word embedding."""


def seed_embeddings(model: Qwen2_5_VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast) -> None:
    """Give every token an embedding of length about 1, and a word the same one with or without its space."""
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        nn.init.normal_(table, std=1 / math.sqrt(table.shape[1]))
        for text, row in tokenizer.get_vocab().items():
            base = text.removeprefix("Ġ").lower()
            if base != text and (same := tokenizer.get_vocab().get(base)) is not None:
                table[row] = 0.3 * table[row] + 0.95 * table[same]


def train_tower(
    model: Qwen2_5_VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    steps: int,
    log: Callable[[str], None],
    autocast: Callable[[], Any],
) -> None:
    """Train ``model.model.visual`` in place; the words stay what they are."""
    tower, device = model.model.visual, model.device
    flatten_patch_embedding(tower)
    words = {kind: tokenizer.convert_tokens_to_ids(list(names)) for kind, names in LABELS.items()}
    table = model.get_input_embeddings().weight.detach()
    bias = nn.ParameterDict({kind: nn.Parameter(torch.zeros(1, device=device)) for kind in LABELS})
    optimizer = torch.optim.AdamW([*tower.parameters(), *bias.parameters()], weight_decay=0.02, betas=(0.9, 0.95))
    right: dict[str, list[float]] = {kind: [] for kind in LABELS}
    for step in range(steps):
        rate = learning_rate(step, steps, 2e-3)
        for group in optimizer.param_groups:
            group["lr"] = rate
        patches, grid, labels = _batch(step)
        with autocast():
            tokens = tower(patches.to(device), grid.to(device)).pooler_output.float()
        loss = torch.zeros((), device=device)
        for kind, rows in words.items():
            scores = CONTRAST * tokens @ table[rows].T
            scores = torch.cat([bias[kind].expand(len(scores), 1), scores], 1)
            label = torch.from_numpy(labels[kind]).to(device)
            weight = torch.ones(scores.shape[1], device=device)
            weight[0] = NOTHING_WEIGHT
            loss = loss + F.cross_entropy(scores, label, weight, ignore_index=-1)
            shown = label > 0
            right[kind].append((scores[shown].argmax(1) == label[shown]).float().mean().item())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            shares = ", ".join(f"{kind} {np.nanmean(values[-50:]):.3f}" for kind, values in right.items())
            log(f"tower step {step + 1}/{steps}: loss {loss.item():.3f}, tokens right: {shares}")


def learning_rate(step: int, steps: int, peak: float, warmup: int = 50) -> float:
    """Return a rate that rises over ``warmup`` steps, then falls along half a cosine."""
    return peak * min(1.0, (step + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def flatten_patch_embedding(tower: Any) -> None:
    """Compute the patch embedding as the matrix product that it is; as a convolution it is several times slower."""

    def forward(self: Any, patches: torch.Tensor) -> torch.Tensor:
        return F.linear(patches.to(self.proj.weight.dtype), self.proj.weight.view(self.embed_dim, -1))

    tower.patch_embed.forward = MethodType(forward, tower.patch_embed)


def _batch(step: int) -> tuple[torch.Tensor, torch.Tensor, dict[str, np.ndarray]]:
    """Return patches, grids (clips, 3) and labels of one temporal step of each of ``CLIPS_PER_STEP`` scenes."""
    patches, grid, labels = [], [], []
    for index in range(CLIPS_PER_STEP):
        seed = FIRST_SEED + step * CLIPS_PER_STEP + index
        rng = np.random.default_rng((1, seed))
        scene = make_scene("still" if rng.random() < 0.1 else "static", seed)
        if scene.still:
            times = (0.0, 0.0)
        else:
            gap = float(rng.choice([0.5, 1.0, 2.0, rng.uniform(0.5, 2)]))
            start = rng.uniform(0, scene.duration_seconds - gap)
            times = (start, start + gap)
        height, width = tower_size(scene.height, scene.width)
        patches.append(patches_of(frames_of(scene, times, rng)))
        grid.append([1, height // PIXELS.patch_size, width // PIXELS.patch_size])
        labels.append(dense_labels(scene, times))
    joined = {kind: np.concatenate([label[kind] for label in labels]) for kind in LABELS}
    return torch.cat(patches), torch.tensor(grid), joined
