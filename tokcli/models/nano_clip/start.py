"""Where training starts from: a tower that sees coarse pictures, and whose tokens look at those like them.

From random weights most of a short training goes into finding what is known of pictures anyhow: that neighbouring
pixels belong together, which patches are neighbours, and that what looks alike is often one thing.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration

_LUMA, _BLUE, _RED = (0.299, 0.587, 0.114), (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081)
_PATTERN_SCALE, _PLACE_SCALE = 0.15, 1.0


def prepare_tower(model: LlavaForConditionalGeneration) -> None:
    """Set patch and position embeddings, queries and keys, and the size of what the projector gives, in place."""
    for layer in (model.model.multi_modal_projector.linear_1, model.model.multi_modal_projector.linear_2):
        nn.init.xavier_uniform_(layer.weight)
    embeddings = model.model.vision_tower.embeddings
    with torch.no_grad():
        embeddings.patch_embedding.weight.copy_(patterns(embeddings.embed_dim, embeddings.patch_size))
        side = embeddings.image_size // embeddings.patch_size
        embeddings.position_embedding.weight[1:] = _PLACE_SCALE * places(side, embeddings.embed_dim)
        for layer in model.model.vision_tower.encoder.layers:
            nn.init.orthogonal_(layer.self_attn.q_proj.weight)
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)


def patterns(channels: int, side: int) -> torch.Tensor:
    """Return the slowest cosine waves of a square, in brightness and in two differences of colour.

    float32 (channels, 3, side, side). Fast waves are weak in pictures, and those of colour even more, though shapes and
    characters are made of them: they are made stronger, so that all channels are about as large.
    """
    coarse = channels * 5 // 16
    parts = [
        strength * torch.einsum("c,nyx->ncyx", torch.tensor(weights) / torch.tensor(weights).norm(), waves)
        for weights, waves, strength in (
            (_LUMA, cosines(channels - 2 * coarse, side), 1.0),
            (_BLUE, cosines(coarse, side), 2.0),
            (_RED, cosines(coarse, side), 2.0),
        )
    ]
    return _PATTERN_SCALE * torch.cat(parts)


def cosines(count: int, side: int) -> torch.Tensor:
    """Return the ``count`` slowest waves of the cosine transform of a square, float32 (count, side, side).

    Each is as long as its number of half waves and one more; the even one, an eighth.
    """
    order = sorted(((y, x) for y in range(side) for x in range(side)), key=lambda wave: (wave[0] + wave[1], wave))
    place = torch.arange(side) + 0.5
    waves = torch.stack([torch.cos(math.pi / side * frequency * place) for frequency in range(side)])
    waves /= waves.norm(dim=1, keepdim=True)
    found = torch.stack([(1 + y + x) * torch.outer(waves[y], waves[x]) for y, x in order[:count]])
    found[0] /= 8
    return found


def places(side: int, width: int) -> torch.Tensor:
    """Return sines and cosines of row and column, float32 (side * side, width); neighbours are alike."""
    frequency = 0.3 * 1.35 ** torch.arange(width // 4)
    frequency = math.pi * frequency / frequency.max()
    angle = torch.arange(side)[:, None] * frequency
    wave = torch.cat([torch.sin(angle), torch.cos(angle)], 1)
    return torch.cat([wave.repeat_interleave(side, 0), wave.repeat(side, 1)], 1)
