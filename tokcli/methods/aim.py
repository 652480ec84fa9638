"""AIM, adaptive inference: halve the tokens of every step by merging the most similar pairs, again and again."""

from __future__ import annotations

from collections import defaultdict
from itertools import accumulate

import torch
from pydantic import Field

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.layout import steps_of, take
from tokcli.methods.options import VariantOptions
from tokcli.methods.output import merge
from tokcli.ops.allocation import proportional
from tokcli.ops.matching import Merging, bipartite_matching
from tokcli.ops.rows import empty
from tokcli.types import TokenSet, VisualTokens

ROWS_AT_A_TIME = 1024


class AimOptions(VariantOptions, SizeBudget):
    halvings: int = Field(
        default=2, ge=0, le=12, description="How often to halve every step where no budget is given; twice: a quarter."
    )


@method(
    "aim",
    options=AimOptions,
    kind="merge",
    count="exact",
    paper="arXiv:2412.03248",
    golden=("aim",),
    code="LaVi-Lab/AIM @ edc24e9f",
    licence="Apache-2.0",
    variants={
        "official": "merging again averages averages, and tokens that did not merge go to the front, which changes "
        "who is compared with whom the next time",
        "fixed": "a merged token is the mean of all that went into it, and the grid's order holds between the rounds",
    },
)
def aim(visual: VisualTokens, options: AimOptions) -> TokenSet:
    """Merge the tokens of every step in rounds: each second one with its most similar among the others.

    In a round the tokens at even positions are matched with those at odd positions by cosine, and the most similar
    pairs merge, at most half of the tokens. Two rounds leave a quarter. A merged token has the place of the token at
    the odd position. Zero vectors are similar to nothing, and a step of one token stays as it is.

    With ``keep`` or ``max_tokens`` the steps share the budget in proportion to their tokens, at least one each, and
    are halved until the last round meets it exactly. The paper's second part, pruning inside the language model, needs
    the prompt and is not done here.
    """
    steps = steps_of(visual)
    rounds = _rounds(visual, options, [len(rows) for rows in steps])
    sizes = [len(rows) - sum(plan) for rows, plan in zip(steps, rounds)]
    starts = [0, *accumulate(sizes)]
    labels = torch.full((len(visual),), -1, dtype=torch.int64)
    anchors = torch.empty(sum(sizes), dtype=torch.int64)
    values = empty((sum(sizes), visual.tokens.shape[1]), visual.tokens.dtype)
    alike = defaultdict(list)
    for index, (rows, plan) in enumerate(zip(steps, rounds)):
        alike[len(rows), plan].append(index)
    for (length, plan), indices in alike.items():
        at_a_time = max(1, ROWS_AT_A_TIME // length)
        for some in (indices[at : at + at_a_time] for at in range(0, len(indices), at_a_time)):
            rows = torch.stack([steps[index] for index in some])
            left = _after(plan, take(visual.tokens, rows.flatten()).float().view(*rows.shape, -1), options)
            groups = torch.tensor([starts[index] for index in some]).unsqueeze(1) + torch.arange(sizes[some[0]])
            labels[rows] = groups.gather(1, left.labels)
            anchors[groups] = rows.gather(1, left.anchors)
            values.index_copy_(0, groups.flatten(), left.tokens.flatten(0, 1).to(values.dtype))
    return merge(visual, labels, anchors, values=values)


def _rounds(visual: VisualTokens, options: AimOptions, sizes: list[int]) -> list[tuple[int, ...]]:
    """How many tokens of each step merge in every round."""
    if not options.budget_given:
        return [
            tuple(size >> (index + 1) for index in range(options.halvings) if size >> (index + 1)) for size in sizes
        ]
    count = rows_to_keep("aim", options, visual, floor=len(sizes), floor_is="a token of each step")
    if not sizes:
        return []
    return [_rounds_to(kept, size) for size, kept in zip(sizes, proportional(torch.tensor(sizes), count).tolist())]


def _rounds_to(kept: int, size: int) -> tuple[int, ...]:
    rounds = []
    while size > kept:
        rounds.append(min(size // 2, size - kept))
        size -= rounds[-1]
    return tuple(rounds)


def _after(rounds: tuple[int, ...], tokens: torch.Tensor, options: AimOptions) -> Merging:
    """What is left of float32 (B, N, D) tokens."""
    official, left = options.variant == "official", Merging.start(tokens)
    for count in rounds:
        matching = bipartite_matching(left.tokens, count)
        order = matching.official_order() if official else matching.list_order()
        left = left.apply(matching, order, by_size=not official)
    return left
