"""TempMe, temporal token merging: within steps, then across ever longer clips of neighbouring steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pydantic import Field

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.layout import clips_of, take
from tokcli.methods.output import Groups, unmerged
from tokcli.ops.allocation import proportional
from tokcli.ops.matching import Merging, bipartite_matching
from tokcli.types import TokenSet, VisualTokens

JOINS = (2, 2, 3)
"""How many neighbouring clips become one, time after time."""
CLIP = math.prod(JOINS)


class TempmeOptions(SizeBudget):
    step_rounds: int = Field(default=8, ge=0, description="Rounds of merging within every step, before any join.")
    step_r: int = Field(default=2, ge=0, description="Tokens that merge in each of those rounds.")
    across: float = Field(default=0.3, ge=0, le=0.5, description="Share that merges right after clips were joined.")
    again: float = Field(default=0.1, ge=0, le=0.5, description="Share that merges in the round after that, and last.")


@method(
    "tempme",
    options=TempmeOptions,
    kind="merge",
    count="exact",
    paper="arXiv:2409.01156",
    golden=("tempme_merge",),
    code="LunarShen/TempMe @ e6249303",
    licence="MIT",
)
def tempme(visual: VisualTokens, options: TempmeOptions) -> TokenSet:
    """Merge the most similar pairs of tokens within steps, then across clips of 2, 4 and 12 steps.

    The paper trains a CLIP that merges inside its blocks. Here its merge operator runs on finished tokens, by the
    schedule of its twelve blocks and with no training: eight rounds of two tokens within every step; then clips of 2
    steps, of 4 and of 12, each time merging 30% across the clip and 10% once more; at last 10% again. In a round the
    tokens at even positions are matched with those at odd ones by cosine, at most half of the tokens merge, and a
    merged token is the mean of all that went into it. It has the place of the token at the odd position.

    With ``keep`` or ``max_tokens`` every clip of 12 steps gets its share in proportion, at least one token, and the
    schedule is stretched: each round leaves the share that it leaves by default, raised to the one power that meets
    the budget. With a share of 1 nothing merges.
    """
    clips = clips_of(visual, CLIP)
    if not clips:
        return unmerged(visual)
    sizes = [[len(rows) for rows in clip] for clip in clips]
    targets: list[int | None] = [None] * len(clips)
    if options.budget_given:
        count = rows_to_keep("tempme", options, visual, floor=len(clips), floor_is="a token for every 12 steps")
        targets = [*proportional(torch.tensor([sum(clip) for clip in sizes]), count).tolist()]
    groups = Groups(visual)
    for clip, lengths, target in zip(clips, sizes, targets):
        rounds = _schedule(lengths, options)
        if target is not None:
            rounds = _stretched(rounds, lengths, target)
        left = _after(rounds, [Merging.start(take(visual.tokens, rows).float().unsqueeze(0)) for rows in clip])
        rows = torch.cat(clip)
        groups.add(rows, left.labels[0], rows[left.anchors[0]], left.tokens[0])
    return groups.merged()


@dataclass(frozen=True)
class _Round:
    join: int
    """How many neighbours become one list before it."""
    sizes: list[int]
    """How many tokens each list has after it."""


def _schedule(sizes: list[int], options: TempmeOptions) -> list[_Round]:
    """The official rounds for the steps of a clip."""
    rounds = []
    for _ in range(options.step_rounds):
        sizes = [size - min(options.step_r, size // 2) for size in sizes]
        rounds.append(_Round(1, sizes))
    after_joins = [pair for join in JOINS for pair in ((join, options.across), (1, options.again))]
    for join, share in [*after_joins, (1, options.again)]:
        sizes = [size - min(int(share * size), size // 2) for size in _joined(sizes, join)]
        rounds.append(_Round(join, sizes))
    return rounds


def _joined(sizes: list[int], join: int) -> list[int]:
    return [sum(sizes[at : at + join]) for at in range(0, len(sizes), join)]


def _stretched(rounds: list[_Round], sizes: list[int], target: int) -> list[_Round]:
    """The same rounds so that ``target`` tokens are left."""
    total, least = sum(sizes), sum(rounds[-1].sizes)
    power = math.log(target / total) / math.log(least / total) if least < total else 0.0
    stretched = []
    for index, planned in enumerate(rounds):
        sizes = _joined(sizes, planned.join)
        wanted = round(total * (sum(planned.sizes) / total) ** power)
        count = target if index == len(rounds) - 1 else min(sum(sizes), max(wanted, target, len(sizes)))
        sizes = proportional(torch.tensor(sizes), count).tolist()
        stretched.append(_Round(planned.join, sizes))
    return stretched


def _after(rounds: list[_Round], lists: list[Merging]) -> Merging:
    """Merge lists of one step each into one of the clip."""
    for planned in rounds:
        if planned.join > 1:
            lists = [Merging.join(lists[at : at + planned.join]) for at in range(0, len(lists), planned.join)]
        lists = [_merged_to(size, left) for size, left in zip(planned.sizes, lists)]
    return lists[0]


def _merged_to(size: int, left: Merging) -> Merging:
    while left.tokens.shape[1] > size:
        matching = bipartite_matching(left.tokens, left.tokens.shape[1] - size)
        left = left.apply(matching, matching.sources_first())
    return left
