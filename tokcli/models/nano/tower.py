"""First stage: the vision tower alone learns what covers each token.

Its outputs are trained against the word embeddings of the language model: a token that shows a red circle moving left
points along "red", "circle" and "left" at once. The language model then finds words that it can match and repeat, which
is most of what it has to learn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLForConditionalGeneration

from tokcli.models.nano.architecture import PIXELS
from tokcli.models.nano.clips import LABELS, dense_labels, frames_of, patches_of, tower_size
from tokcli.models.nano.curriculum import SIMPLE, Mix
from tokcli.models.nano.optimizers import muon_and_adam
from tokcli.synthetic import Scene

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
    mix: Mix = SIMPLE,
    peak: float = 2e-3,
    muon: bool = False,
) -> None:
    """Train ``model.model.visual`` in place on scenes of ``mix``; the words stay what they are.

    ``peak`` is the highest rate of learning, by AdamW or, with ``muon``, of what Muon leaves to it.
    """
    tower, device = model.model.visual, model.device
    flatten_patch_embedding(tower)
    words = {kind: tokenizer.convert_tokens_to_ids(list(LABELS[kind])) for kind in mix.words}
    table = model.get_input_embeddings().weight.detach()
    bias = nn.ParameterDict({kind: nn.Parameter(torch.zeros(1, device=device)) for kind in mix.words})
    weights = [*tower.parameters(), *bias.parameters()]
    optimizers: list[torch.optim.Optimizer] = (
        muon_and_adam(weights, (), peak, weight_decay=0.02)
        if muon
        else [torch.optim.AdamW([{"params": weights, "peak": peak}], weight_decay=0.02, betas=(0.9, 0.95))]
    )
    right: dict[str, list[float]] = {kind: [] for kind in mix.words}
    for step in range(steps):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = learning_rate(step, steps, group["peak"])
        patches, grid, labels = _batch(mix, step)
        with autocast():
            tokens = tower(patches.to(device), grid.to(device)).pooler_output.float()
        loss = word_loss(tokens, labels, words, table, bias, right)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            shares = ", ".join(f"{kind} {np.mean(values[-50:]):.3f}" for kind, values in right.items() if values)
            log(f"tower step {step + 1}/{steps}: loss {loss.item():.3f}, tokens right: {shares}")


def word_loss(
    tokens: torch.Tensor,
    labels: Mapping[str, np.ndarray],
    words: Mapping[str, Sequence[int]],
    table: torch.Tensor,
    bias: nn.ParameterDict,
    right: Mapping[str, list[float]],
) -> torch.Tensor:
    """Return how far tokens are from pointing along the words that they show.

    Args:
        tokens: float32 (N, D).
        labels: int64 (N,) by kind: 0 for nothing, -1 for unsure, otherwise 1 + the number of the word.
        words: Rows of ``table`` by kind.
        table: (V, D) embeddings of words.
        bias: Score of nothing, (1,) by kind.
        right: Gets the share of the tokens that show something and are right, by kind.
    """
    loss = torch.zeros((), device=tokens.device)
    for kind, rows in words.items():
        scores = CONTRAST * tokens @ table[rows].T
        scores = torch.cat([bias[kind].expand(len(scores), 1), scores], 1)
        label = torch.from_numpy(labels[kind]).to(tokens.device)
        weight = torch.ones(scores.shape[1], device=tokens.device)
        weight[0] = NOTHING_WEIGHT
        if (label >= 0).any():
            loss = loss + F.cross_entropy(scores, label, weight, ignore_index=-1)
        if (shown := label > 0).any():
            right[kind].append((scores[shown].argmax(1) == label[shown]).float().mean().item())
    return loss


def learning_rate(step: int, steps: int, peak: float, warmup: int = 50) -> float:
    """Return a rate that rises over ``warmup`` steps, then falls along half a cosine."""
    return peak * min(1.0, (step + 1) / warmup) * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def flatten_patch_embedding(tower: Any) -> None:
    """Compute the patch embedding as the matrix product that it is; as a convolution it is several times slower."""

    def forward(self: Any, patches: torch.Tensor) -> torch.Tensor:
        return F.linear(patches.to(self.proj.weight.dtype), self.proj.weight.view(self.embed_dim, -1))

    tower.patch_embed.forward = MethodType(forward, tower.patch_embed)


def _batch(mix: Mix, step: int) -> tuple[torch.Tensor, torch.Tensor, Mapping[str, np.ndarray]]:
    """Return patches, grids (clips, 3) and labels of one temporal step of each of ``CLIPS_PER_STEP`` scenes."""
    patches, grid, labels = [], [], []
    for index in range(CLIPS_PER_STEP):
        seed = mix.first_seed + step * CLIPS_PER_STEP + index
        rng = np.random.default_rng((1, seed))
        scene = mix.scene(rng, seed)
        times = _two_times(scene, rng)
        scene = mix.with_extra_characters(scene, times, rng)
        height, width = tower_size(scene.height, scene.width, mix.frame_scale(rng))
        patches.append(patches_of(frames_of(scene, times, rng, (height, width))))
        grid.append([1, height // PIXELS.patch_size, width // PIXELS.patch_size])
        labels.append(dense_labels(scene, times, (height, width)))
    joined = {kind: np.concatenate([label[kind] for label in labels]) for kind in LABELS}
    return torch.cat(patches), torch.tensor(grid), joined


def _two_times(scene: Scene, rng: np.random.Generator) -> tuple[float, float]:
    """Draw the moments (seconds) of a step's two frames; of a flash, most of the time one that shows it."""
    if scene.still:
        return 0.0, 0.0
    gap = float(rng.choice([0.5, 1.0, 2.0, rng.uniform(0.5, 2)]))
    start = rng.uniform(0, scene.duration_seconds - gap)
    if scene.kind == "needle" and rng.random() < 0.7:
        flash = (scene.glyphs[0].start + scene.glyphs[0].stop) / 2
        start = min(max(0.0, flash - gap * float(rng.integers(2))), scene.duration_seconds - gap)
    return start, start + gap
