"""Balanced: tokens that matter and differ, in a mix that each picture and its budget decide."""

from __future__ import annotations

import math

import numpy as np
import torch
from pydantic import Field

from tokcli.methods.base import Stats, Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Choose, StepSelection, shares_of
from tokcli.methods.importance import ImportanceOptions, importance_of, importance_signals
from tokcli.methods.tiles import Step
from tokcli.ops.complexity import effective_rank, entropy_nats
from tokcli.ops.diversity import max_min_order, unit_rows, weighted_max_min_order
from tokcli.ops.selection import evenly_spaced
from tokcli.types import View, VisualTokens

RANK_ROWS = 256
"""Tokens of a picture that its effective rank is computed of, at most: the cost grows with their cube."""
MOST_POWER = 64.0
HALVINGS = 24


class BalancedOptions(ImportanceOptions, SizeBudget):
    budget_required = True

    diversity: float = Field(
        default=2.0,
        ge=0,
        description="How much the mix leans to tokens that differ: 0 keeps nearly the most important ones alone, and "
        "a large number the most different ones.",
    )


@method(
    "balanced",
    options=BalancedOptions,
    kind="select",
    count="exact",
    streaming=True,
    needs_from=importance_signals,
)
def balanced(options: BalancedOptions, views: tuple[View, ...]) -> Stream:
    """Keep tokens that matter and differ, in a mix that each picture and its budget decide.

    This project's own. Each next token is the one whose weight times its distance to the nearest token already kept is
    the largest; the distance is 1 - cosine, the weight is the importance to a power. With a power of 0 that is a choice
    by distances alone, as in divprune, and a large power takes the most important tokens, as fastervlm does.

    The power follows from two numbers of the picture. Its effective rank R says how many directions its tokens have:
    K tokens are a choice among ``K * (1 + diversity * min(1, K / R))``. So a budget that is small for a rich picture
    goes to what matters, and one that has a token for each direction is spread. The power is the one at which the
    entropy of the weights says that as many tokens compete; flat attention takes a larger one to get there.
    docs/balanced.md has the figures that this was made from.

    Each frame of a video, still, thumbnail and tile is a picture of its own and keeps the same share. Stored with the
    item, for every picture of which tokens were dropped: ``effective_rank``, ``attention_entropy`` in nats, and
    ``importance_power``.
    """
    return _Balanced(options, views)


class _Balanced(StepSelection):
    def __init__(self, options: BalancedOptions, views: tuple[View, ...]) -> None:
        super().__init__("balanced", options, views, self._prepared)
        self._options = options
        self._found: list[tuple[float, float, float]] = []

    def finish(self) -> Stats:
        columns = np.array(self._found, dtype=np.float32).reshape(-1, 3).T
        return dict(zip(("effective_rank", "attention_entropy", "importance_power"), columns))

    def _prepared(self, chunk: VisualTokens) -> Choose:
        importance = importance_of(chunk, self._options)
        if self._options.importance == "anticos":
            # A cosine with its sign changed: from -1, for a token that is the mean, to 1.
            importance = importance + 1

        def choose(step: Step, count: int) -> torch.Tensor:
            kept = []
            for tile, k in zip(step.tiles, shares_of(step, count)):
                if k == len(tile.rows) or k == 0:
                    kept.append(tile.rows[:k])
                    continue
                tokens, scores = chunk.tokens[tile.rows], importance[tile.rows]
                some = evenly_spaced(len(tokens), min(len(tokens), RANK_ROWS))
                rank = effective_rank(tokens[some])
                power = power_for(scores, competing(k, rank, self._options.diversity))
                unit = unit_rows(tokens)
                if power > 0:
                    order = weighted_max_min_order(unit, weights_of(scores, power), k)
                else:
                    order = max_min_order(unit, k)
                kept.append(tile.rows[order])
                self._found.append((rank, entropy_nats(scores), power))
            return torch.cat(kept)

        return choose


def competing(count: int, rank: float, diversity: float) -> float:
    """Among how many tokens ``count`` are a choice, in a picture of this effective rank."""
    return count * (1 + diversity * min(1.0, count / max(rank, 1.0)))


def weights_of(scores: torch.Tensor, power: float) -> torch.Tensor:
    """Float (n,) scores to a power, float64, the largest 1; what is not above 0 has no weight unless nothing has."""
    positive = scores.double().clamp_min(0)
    most = positive.max()
    if float(most) == 0.0:
        return torch.ones_like(positive)
    return (positive / most).pow(power)


def power_for(scores: torch.Tensor, count: float) -> float:
    """The power, 0 to 64, at which ``exp(entropy)`` of the weights is ``count``: found by halving."""
    low, high = 0.0, MOST_POWER
    if count >= len(scores):
        return low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if entropy_nats(weights_of(scores, middle)) > math.log(count):
            low = middle
        else:
            high = middle
    return high
