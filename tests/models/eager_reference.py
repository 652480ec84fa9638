"""Signals by their definitions, from the probabilities that eager attention gives."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from native_reference import PATCH, TEMPORAL, fill_step

from tokcli.models import signals

HUBS = (1.02, 1.01, 1.0)
"""Times the mean: in tiny random towers all patches receive about the same."""
TOLERANCE = 3e-6
"""Of the largest value: sums are made in another order."""


@dataclass(frozen=True)
class Frame:
    """What an eager run computed of one frame."""

    weights: Sequence[torch.Tensor]
    """(heads, n, n) of each block, after the softmax."""
    block: int
    """That of most signals."""
    query: torch.Tensor
    """(heads, n, d) of this block, as the product takes them: after their rotation, if there is one."""
    key: torch.Tensor
    projected: torch.Tensor
    """(n, C): keys as they leave the key projection."""
    last: tuple[torch.Tensor, torch.Tensor] | None = None
    """Query and key of the last block, where there is a [CLS]."""
    layers: Sequence[int] = ()
    """Blocks that see the whole frame; all where empty."""

    def signals(self, pool: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, torch.Tensor]:
        """All that come out of blocks; ``pool`` makes means over the patches of each token of (patches, ...)."""
        heads, _, width = self.key.shape
        first = 0 if self.last is None else 1
        layers = self.layers or range(len(self.weights))
        mean_query = torch.stack([self.query[:, row] for row in range(first, self.query.shape[1])]).mean(dim=0)
        by_token = pool(self.key[:, first:].transpose(0, 1))
        meanq = torch.stack([torch.softmax(by_token[:, h] @ mean_query[h] / width**0.5, dim=0) for h in range(heads)])
        keys = pool(self.projected[first:])
        found = {
            "received_attention": pool(received(self.weights[self.block])[first:]),
            "received_layers": torch.stack([pool(received(self.weights[block])[first:]) for block in layers], dim=1),
            "meanq": meanq.mean(dim=0),
            "hub_attention": pool(
                torch.stack([hubs(self.weights[self.block], first, times)[first:] for times in signals.HUBS], dim=1)
            ),
            "keys": keys,
            "head_mean_keys": torch.stack([keys[:, h * width : (h + 1) * width] for h in range(heads)]).mean(dim=0),
        }
        if self.last is None:
            return found
        query, key = self.last
        logits = torch.stack([key[h, 1:] @ query[h, 0] / width**0.5 for h in range(heads)]).mean(dim=0)
        return found | {
            "cls_attention": pool(self.weights[self.block].mean(dim=0)[0, 1:]),
            "cls_attention_layers": torch.stack([pool(block.mean(dim=0)[0, 1:]) for block in self.weights], dim=1),
            "cls_logits": pool(logits),
        }


@dataclass(frozen=True)
class Pictures:
    """What an eager run of a tower that takes planes computed."""

    frames: list[Frame]
    states: tuple[torch.Tensor, ...]
    """(n, rows, C): what went into the first block, then what came out of each."""
    last: torch.Tensor
    """(n, rows, C): what the tower gives in the end."""


@torch.no_grad()
def eager_pictures(tower: Any, planes: torch.Tensor, block: int, *, cls: bool = True) -> Pictures:
    """Pictures (n, 3, h, w) through a tower whose attention is eager; most signals are of ``block``."""
    layers = getattr(tower.encoder, "layers", None) or tower.encoder.layer
    attentions = [layer.self_attn if hasattr(layer, "self_attn") else layer.attention for layer in layers]
    seen: dict[tuple[int, str], torch.Tensor] = {}
    handles = [
        getattr(attentions[number], name).register_forward_hook(
            lambda _module, _args, out, key=(number, name): seen.update({key: out})
        )
        for number in (block, len(attentions) - 1)
        for name in ("q_proj", "k_proj", "q_norm", "k_norm")
        if hasattr(attentions[number], name)
    ]
    output = tower(planes, output_attentions=True, output_hidden_states=True, return_dict=True)
    for handle in handles:
        handle.remove()

    def of(number: int, which: str) -> torch.Tensor:
        """(n, rows, C) of a block, after the norm that some towers have there."""
        number %= len(attentions)
        return seen.get((number, f"{which}_norm"), seen[number, f"{which}_proj"])

    def heads(values: torch.Tensor) -> torch.Tensor:
        return values.unflatten(-1, (attentions[0].num_heads, -1)).transpose(0, 1)

    frames = [
        Frame(
            [weights[picture] for weights in output.attentions],
            block,
            heads(of(block, "q")[picture]),
            heads(of(block, "k")[picture]),
            of(block, "k")[picture],
            (heads(of(-1, "q")[picture]), heads(of(-1, "k")[picture])) if cls else None,
        )
        for picture in range(len(planes))
    ]
    return Pictures(frames, output.hidden_states, output.last_hidden_state)


@torch.no_grad()
def eager_run(
    folder: Path, patches: torch.Tensor, grid: list[int], layers: Sequence[int]
) -> tuple[list[Frame], torch.Tensor]:
    """The native tower with eager attention, overheard in ``layers``: its frames, and the patches before the merging.

    Both in the order in which the tower has them; the last layer makes most signals.
    """
    from transformers import AutoModelForImageTextToText

    native = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()
    visual = native.model.visual
    module = importlib.import_module(type(visual).__module__)
    attentions = [visual.blocks[layer].attn for layer in layers]
    seen: list[list[tuple[torch.Tensor, ...]]] = [[] for _ in layers]
    plain = module.eager_attention_forward

    def spy(attention: Any, query: torch.Tensor, key: torch.Tensor, *rest: Any, **options: Any) -> Any:
        output, weights = plain(attention, query, key, *rest, **options)
        if attention in attentions:
            seen[attentions.index(attention)].append((weights[0], query[0], key[0]))
        return output, weights

    projected: list[torch.Tensor] = []
    attentions[-1].qkv.register_forward_hook(lambda _module, _args, out: projected.append(out.chunk(3, dim=-1)[1]))
    features: list[torch.Tensor] = []
    if hasattr(visual, "downsample"):  # GLM's: its last states come after the merging
        visual.post_layernorm.register_forward_hook(lambda _module, _args, out: features.append(out))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "eager_attention_forward", spy)
        output = native.model.get_video_features(patches, torch.tensor([grid]), return_dict=True)
    frames = []
    for step, plain_keys in enumerate(projected[0].chunk(grid[0])):
        weights, queries, keys = zip(*(layer[step] for layer in seen))
        frames.append(Frame(weights, len(layers) - 1, queries[-1], keys[-1], plain_keys))
    return frames, (features or [output.last_hidden_state])[0]


def token_order(family: str, frames: np.ndarray) -> torch.Tensor:
    """Where each token of the clip stands in the tower, by transformers' own list of windows."""
    rows, columns = frames.shape[1] // PATCH, frames.shape[2] // PATCH
    steps = len(fill_step(frames)) // TEMPORAL
    if family == "qwen2_vl":
        return torch.arange(steps * rows * columns // 4)
    from transformers.vision_utils import get_vision_window_index

    index, _ = get_vision_window_index(
        torch.tensor([[steps, rows, columns]]), spatial_merge_size=2, window_size=56, patch_size=PATCH
    )
    assert not torch.equal(index, torch.arange(len(index)))
    return torch.argsort(index)


def of_four(values: torch.Tensor) -> torch.Tensor:
    """(patches, ...) to the mean of each four in a row."""
    return torch.stack([values[first : first + 4].mean(dim=0) for first in range(0, len(values), 4)])


def all_signals(inside: list[Frame], features: torch.Tensor) -> dict[str, torch.Tensor]:
    """Those of a clip, in the order in which the tower has its tokens."""
    frames = [frame.signals(of_four) for frame in inside]
    found = {name: torch.cat([frame[name] for frame in frames]) for name in frames[0]}
    return found | {"pre_projector": of_four(features)}


def received(weights: torch.Tensor) -> torch.Tensor:
    """What each place receives of (heads, n, n)."""
    return weights.mean(dim=(0, 1))


def hubs(weights: torch.Tensor, first: int, times: float) -> torch.Tensor:
    """What the hubs give to each place; only those behind ``first`` can be hubs."""
    heads = weights.mean(dim=0)
    gets = heads.mean(dim=0)
    mean = gets[first:].mean()
    rows = [heads[place] for place in range(first, len(gets)) if gets[place] > times * mean]
    return torch.stack(rows).mean(dim=0) if rows else gets


def check_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Same names and shapes, float32, and values up to the rounding of sums in another order."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == torch.float32 and found[name].shape == values.shape, name
        assert float((found[name] - values).abs().max()) <= TOLERANCE * float(values.abs().max()), name
