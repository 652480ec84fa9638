"""First stage: tower and projector alone learn what covers each token of a single frame, and [CLS] what is in it.

As in ``tokcli.models.nano.tower`` tokens are trained to point along the word embeddings of what they show. Three
coordinates of the same space, which words leave at 0, get the centre and size of it: a frame alone shows no motion, but
the language model can compare the places of one object in several.

[CLS] is not among LLaVA's tokens. CLIP trains it with captions, and methods rely on it to look at what a caption would
name; here the caption is the set of colours, shapes and characters in the frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from tokcli.models.nano.clips import TOKEN_PX as NANO_TOKEN_PX
from tokcli.models.nano.clips import dense_labels, frames_of
from tokcli.models.nano.curriculum import Mix
from tokcli.models.nano.optimizers import muon_and_adam
from tokcli.models.nano.tower import CONTRAST, learning_rate, word_loss
from tokcli.models.nano_clip.architecture import FRAME, PIXELS
from tokcli.models.preprocess import to_planes
from tokcli.synthetic import CHARACTERS, COLORS, SHAPES, Scene

FRAMES_PER_STEP = 32
"""Each of another scene."""
PEAK = 2e-3
"""The highest rate of learning."""
GRID = FRAME.height // PIXELS.patch_size
SMALLER_SHARE = 0.15
"""Of the batches, whose frames are smaller than the tower's own size: what ``downsample`` gives it."""
LABELS = {"color": tuple(COLORS), "shape": SHAPES, "character": CHARACTERS}
MEASURES = ("x", "y", "size")
"""What the first coordinates of a token hold: the centre of what it shows, -2 at the left or upper edge to 2 at the
other, and twice the logarithm of its radius over an eighth of the frame."""
MEASURE_WEIGHT = 1.0
CAPTION_WEIGHT = 1.0
SURE_OF_FLASH = 0.6
"""Share of the clips with something short whose frames are taken while it is there."""


def train_tower(
    model: LlavaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    mix: Mix,
    steps: int,
    log: Callable[[str], None],
    autocast: Callable[[], Any],
) -> None:
    """Train ``model.model.vision_tower`` and ``multi_modal_projector`` in place; the words stay what they are."""
    inner, device = model.model, model.device
    words = {kind: tokenizer.convert_tokens_to_ids(list(names)) for kind, names in LABELS.items()}
    table = model.get_input_embeddings().weight.detach()
    caption = nn.Linear(inner.vision_tower.config.hidden_size, table.shape[1], device=device)
    bias = nn.ParameterDict({kind: nn.Parameter(torch.zeros(1, device=device)) for kind in [*LABELS, "caption"]})
    trained = [*inner.vision_tower.parameters(), *inner.multi_modal_projector.parameters()]
    embeddings = [
        parameter for name, parameter in inner.vision_tower.named_parameters() if not name.startswith("encoder.")
    ]
    optimizers = muon_and_adam(
        [*inner.vision_tower.encoder.parameters(), *inner.multi_modal_projector.parameters()],
        [*embeddings, *caption.parameters(), *bias.parameters()],
        PEAK,
        weight_decay=0.02,
    )
    right: dict[str, list[float]] = {kind: [] for kind in [*LABELS, "caption"]}
    away: list[float] = []
    for step in range(steps):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = learning_rate(step, steps, group["peak"])
        frames, labels, places = _batch(mix, step)
        with autocast():
            output = inner.get_image_features(
                to_planes(frames.to(device), PIXELS),
                return_dict=True,
                interpolate_pos_encoding=tuple(frames.shape[1:3]) != (FRAME.height, FRAME.width),
                output_hidden_states=True,
            )
            pooled = caption(inner.vision_tower.post_layernorm(output.hidden_states[-1][:, 0])).float()
        tokens = torch.cat(list(output.pooler_output)).float()
        loss = word_loss(tokens, labels, words, table, bias, right)
        place = torch.from_numpy(places).to(device)
        known = ~place.isnan().any(1)
        off = tokens[known, : len(MEASURES)] - place[known]
        loss = loss + MEASURE_WEIGHT * off.square().mean()
        away.append(off[:, :2].abs().mean().item())
        named = CONTRAST * pooled @ table[[row for rows in words.values() for row in rows]].T + bias["caption"]
        wanted = _caption(labels, len(frames)).to(device)
        loss = loss + CAPTION_WEIGHT * F.binary_cross_entropy_with_logits(named, wanted)
        right["caption"].append(((named > 0) == (wanted > 0)).float().mean().item())
        model.zero_grad()
        caption.zero_grad()
        bias.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            shares = ", ".join(f"{kind} {np.mean(values[-50:]):.3f}" for kind, values in right.items())
            # A coordinate goes from -2 to 2, which are eight tokens.
            log(
                f"tower step {step + 1}/{steps}: loss {loss.item():.3f}, right: {shares}, "
                f"centres {2 * np.mean(away[-50:]):.2f} tokens away"
            )


def _caption(labels: dict[str, np.ndarray], frames: int) -> torch.Tensor:
    """Return which words name something in each frame, float32 (frames, words)."""
    present = []
    for kind, names in LABELS.items():
        label = torch.from_numpy(labels[kind]).view(frames, -1)
        present.append(F.one_hot(label.clamp(min=0), 1 + len(names))[:, :, 1:].amax(1).float())
    return torch.cat(present, 1)


def free_measures(model: LlavaForConditionalGeneration) -> None:
    """Take the first coordinates away from the words, in place."""
    with torch.no_grad():
        model.get_input_embeddings().weight[:, : len(MEASURES)] = 0


def _batch(mix: Mix, step: int) -> tuple[torch.Tensor, dict[str, np.ndarray], np.ndarray]:
    """Return frames uint8 (n, h, w, 3), and of each token labels (n * tokens,) and measures (n * tokens, 3)."""
    sides = np.random.default_rng((3, mix.first_seed, step))
    rows, columns = (
        (GRID, GRID) if sides.random() > SMALLER_SHARE else (int(side) for side in sides.integers(4, GRID, 2))
    )
    frames, labels, places = [], [], []
    for index in range(FRAMES_PER_STEP):
        seed = mix.first_seed + step * FRAMES_PER_STEP + index
        rng = np.random.default_rng((1, seed))
        scene = mix.scene(rng, seed)
        seconds = a_moment(scene, rng)
        scene = mix.with_extra_characters(scene, (seconds, seconds), rng)
        size = rows * PIXELS.patch_size, columns * PIXELS.patch_size
        # A second frame is the first again, which nano's temporal patches need.
        frames.append(frames_of(scene, [seconds], rng, size)[:1])
        # Labels go by shares of a token, whatever its size in pixels.
        labels.append(dense_labels(scene, (seconds, seconds), (rows * NANO_TOKEN_PX, columns * NANO_TOKEN_PX)))
        places.append(measures(scene, seconds, labels[-1]))
    joined = {kind: np.concatenate([label[kind] for label in labels]) for kind in LABELS}
    return torch.cat(frames).permute(0, 2, 3, 1), joined, np.concatenate(places)


def a_moment(scene: Scene, rng: np.random.Generator) -> float:
    """Draw the seconds at which a frame is taken: any, or while something short is there."""
    if scene.kind == "needle" and rng.random() < SURE_OF_FLASH:
        return float(rng.uniform(scene.glyphs[0].start, scene.glyphs[0].stop))
    return float(rng.uniform(0, scene.duration_seconds))


def measures(scene: Scene, seconds: float, labels: dict[str, np.ndarray]) -> np.ndarray:
    """Return centre and size of what each token shows by its labels: float32 (tokens, 3), NaN where it is nothing."""
    found = np.full((len(labels["shape"]), len(MEASURES)), np.nan, np.float32)

    def fill(rows: np.ndarray, x: float, y: float, radius: float) -> None:
        size = 2 * math.log(8 * radius / math.sqrt(scene.width * scene.height))
        found[rows] = 4 * x / scene.width - 2, 4 * y / scene.height - 2, size

    for shot, _ in scene.shot_at(seconds):
        for item in shot.objects:
            # Objects that are seen together have different shapes.
            fill(labels["shape"] == 1 + SHAPES.index(item.shape), *item.center(seconds), item.radius_at(seconds))
    for glyph in scene.glyphs:
        if glyph.shown(seconds):
            fill(labels["character"] == 1 + CHARACTERS.index(glyph.character), glyph.x, glyph.y, glyph.size[1] / 2)
    return found
