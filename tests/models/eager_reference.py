"""Signals by their definitions, from the probabilities that eager attention gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

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
