"""PuMer: drop what matters little, then merge what is alike (arXiv:2305.17530), without its text and its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field

from tokcli.methods.base import in_tower, method
from tokcli.methods.options import VariantOptions
from tokcli.methods.tower_schedule import AtBlocks, left_in_stages
from tokcli.ops.block_attention import BlockAttention
from tokcli.ops.matching import Matching, Merging, bipartite_matching
from tokcli.ops.reducing import Act, InTower, Rows, Step, TowerShape


class PumerOptions(AtBlocks, VariantOptions):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.5}
    prune: float = Field(
        default=0.5, ge=0, le=1, description="Of the tokens that go, the share that is dropped; the others merge."
    )
    match: Literal["keys", "score"] = Field(
        default="keys", description="Merge tokens with like keys, or tokens that are attended to alike."
    )


def match_by_score(score: torch.Tensor, r: int) -> Matching:
    """Match even with odd tokens of the most equal scores, (B, n) float32; ties to the lowest place."""
    places = torch.arange(score.shape[1], device=score.device)
    sources, destinations = places[::2], places[1::2]
    apart = (score[:, ::2].unsqueeze(2) - score[:, 1::2].unsqueeze(1)).abs()
    least, best = apart.min(dim=2)
    order = least.sort(dim=1, stable=True).indices
    r = min(r, score.shape[1] // 2)
    return Matching(
        merged=sources[order[:, :r]],
        targets=destinations[best.gather(1, order[:, :r])],
        unmerged=sources[order[:, r:]],
        destinations=destinations.expand(len(score), -1),
    )


def merge_matched(states: torch.Tensor, sizes: torch.Tensor, matching: Matching, *, added: bool) -> Merging:
    """Merge along a matching, in the authors' order: by the mean, or with everything ``added`` up."""
    merging = Merging.start(states, sizes).apply(matching, matching.official_order())
    if not added:
        return merging
    total = torch.zeros_like(merging.tokens)
    return replace(merging, tokens=total.scatter_add_(1, merging.labels.unsqueeze(2).expand_as(states), states))


def _act(options: PumerOptions, left: int, rows: Rows, seen: BlockAttention) -> Step | None:
    official, first = options.variant == "official", rows.leading
    count = rows.states.shape[1] - first
    # No more than half of what is not dropped can merge.
    pruned = max(int((count - left) * options.prune), count - 2 * left + official)
    score = seen.importance()
    by_score = score[:, first:].sort(dim=1, descending=True, stable=True).indices[:, : count - pruned] + first
    kept = by_score if official else by_score.sort(dim=1).values
    leading = torch.arange(first, device=kept.device).expand(len(kept), -1)
    order = torch.cat([leading, kept], dim=1)
    chosen = Step.selected(rows.states, order)
    if count - pruned <= left:
        return chosen
    sizes = rows.sizes.gather(1, kept)
    if options.match == "score":
        matching = match_by_score(score.gather(1, kept), count - pruned - left)
    else:
        # The authors multiply keys with the score, which a cosine does not see, and spare the first token: after the
        # sort the one that matters most. Without the sort there is no such token, and [CLS] is not among these.
        keys = seen.keys()
        keys = keys.gather(1, kept.unsqueeze(2).expand(-1, -1, keys.shape[2]))
        matching = bipartite_matching(keys, count - pruned - left, protected=int(official))
    merging = merge_matched(chosen.states[:, first:], sizes, matching, added=official)
    behind = torch.where(chosen.into >= first, chosen.into - first, 0)
    into = torch.where(chosen.into >= first, merging.labels.gather(1, behind) + first, chosen.into)
    return Step(
        states=torch.cat([chosen.states[:, :first], merging.tokens], dim=1),
        rows=torch.cat([leading, kept.gather(1, merging.anchors)], dim=1),
        into=into,
    )


def _plan(options: PumerOptions, shape: TowerShape) -> dict[int, Act]:
    stages = options.stages("pumer", shape)
    counts = left_in_stages("pumer", options, len(stages), shape) or []
    return {block: partial(_act, options, left) for block, left in zip(stages, counts)}


@method(
    "pumer",
    options=PumerOptions,
    paper="arXiv:2305.17530",
    code="csarron/PuMer 8a00d853",
    licence="MIT",
    kind="merge",
    count="by the encoder",
    streaming=True,
    where=in_tower,
    variants={
        "official": "puts tokens in the order of their attention, spares the first one, and adds merged tokens up "
        "without dividing, so that they grow with what they stand for",
        "fixed": "leaves tokens where they are, and merges them by the mean of what they stand for",
    },
    golden=("pumer",),
)
def pumer(options: PumerOptions) -> InTower:
    """Drop tokens that get little attention and merge those alike, in a few blocks of the tower.

    The original goes by the relevance to a text and was trained with it; here a token counts by the attention that
    [CLS], or all tokens where there is none, give to it. ``keep`` is reached in stages of about the same share; in each
    ``prune`` of the tokens that go are dropped, and the others merge; more are dropped where else more than half of the
    rest would have to merge.
    """
    return InTower(partial(_plan, options))
