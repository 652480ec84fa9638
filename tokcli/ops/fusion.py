"""Fusing tokens by several criteria at once, as in MCTF (arXiv:2403.10030)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tokcli.ops.reducing import Step, averaged
from tokcli.ops.similarity import norms


@dataclass(frozen=True)
class Criteria:
    """What makes two tokens worth fusing; the larger a temperature, the less it counts, and 0 turns it off."""

    similarity: float = 1.0
    information: float = 20.0
    """Of little attention received."""
    size: float = 40.0
    """Of standing for few tokens."""


def fuse(
    states: torch.Tensor,
    sizes: torch.Tensor,
    received: torch.Tensor,
    r: int,
    criteria: Criteria,
    *,
    protected: int = 0,
    both_ways: bool = True,
    weigh_by: str = "attention",
) -> Step:
    """Take away ``r`` tokens: half of them go from even places to odd ones, the other half back.

    Args:
        states: (B, T, W) what goes into a block.
        sizes: float32 (B, T).
        received: float32 (B, T), the attention that each gets.
        r: At least 1, at most half of the tokens that are not protected.
        protected: 1 where the first token stays as it is.
        both_ways: Else all go from even to odd places.
        weigh_by: What a fused token is the mean by: ``attention`` (received, times size), ``size``, ``mean``; or
            ``max`` for the largest value of each channel.
    """
    length = states.shape[1]
    scores = _scores(states.float(), sizes, received, criteria)
    scores[:, :protected] = -torch.inf
    places = torch.arange(length, device=states.device)
    even, odd = places[::2], places[1::2]
    there = r // 2 if both_ways else r
    best, target = scores.max(dim=2)
    order = best.sort(dim=1, descending=True, stable=True).indices
    into = places.expand(len(states), -1).clone()
    into.scatter_(1, even[order[:, :there]], odd[target.gather(1, order[:, :there])])
    stay = order[:, there:].sort(dim=1).values if protected else order[:, there:]
    back = r - there
    remaining = odd.expand(len(states), -1)
    if back:
        left = scores.gather(1, stay.unsqueeze(2).expand(-1, -1, scores.shape[2]))
        best, target = left.max(dim=1)
        order = best.sort(dim=1, descending=True, stable=True).indices
        into.scatter_(1, odd[order[:, :back]], even[stay.gather(1, target.gather(1, order[:, :back]))])
        # What went to an odd place goes on with it.
        into = into.gather(1, into)
        remaining = odd[order[:, back:]]
    rows = torch.cat([even[stay], remaining], dim=1)
    rank = torch.zeros_like(into).scatter_(1, rows, torch.arange(rows.shape[1], device=rows.device).expand_as(rows))
    into = rank.gather(1, into)
    weights = {
        "attention": received * sizes / sizes.amax(dim=1, keepdim=True),
        "size": sizes,
    }.get(weigh_by, torch.ones_like(sizes))
    totals = torch.zeros_like(rows, dtype=weights.dtype).scatter_add_(1, into, weights)
    shares = weights / totals.gather(1, into)
    if weigh_by == "max":
        index = into.unsqueeze(2).expand_as(states)
        fused = torch.full((*rows.shape, states.shape[2]), -torch.inf, device=states.device)
        fused.scatter_reduce_(1, index, states.float(), "amax")
    else:
        fused = averaged(states.float(), rows, into, shares)
    return Step(fused.to(states.dtype), rows, into, shares=shares)


def _scores(states: torch.Tensor, sizes: torch.Tensor, received: torch.Tensor, criteria: Criteria) -> torch.Tensor:
    """float32 (B, even, odd): how worth fusing each pair is."""
    even, odd = states[:, ::2], states[:, 1::2]
    scores = torch.ones((len(states), even.shape[1], odd.shape[1]), device=states.device)
    if criteria.similarity:
        cosines = even @ odd.transpose(1, 2) / (norms(even).unsqueeze(2) * norms(odd).unsqueeze(1))
        scores = ((cosines + 1) / 2).clamp_min(0) ** (1 / criteria.similarity)
    worth = torch.ones_like(sizes)
    for values, temperature in ((received, criteria.information), (sizes, criteria.size)):
        if temperature:
            worth = worth * (values.amin(dim=1, keepdim=True) / values) ** (1 / temperature)
    return scores * worth[:, ::2].unsqueeze(2) * worth[:, 1::2].unsqueeze(1)
