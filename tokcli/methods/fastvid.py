"""FastVID: salient tokens of every step, and dense ones of some that stand for the rest of their segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch.nn.utils.rnn import pad_sequence

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, grid_tokens, rows_to_keep
from tokcli.methods.importance import Importance, ImportanceOptions, importance_of, importance_signals
from tokcli.methods.layout import blocks
from tokcli.methods.options import VariantOptions
from tokcli.methods.output import Groups, unmerged
from tokcli.ops.allocation import proportional
from tokcli.ops.density import DensityPeaks
from tokcli.ops.pooling import frame_means
from tokcli.ops.selection import top_k_mask
from tokcli.ops.similarity import cosine
from tokcli.types import TokenSet, VisualTokens

DEFAULT_KEEP = 0.1
NEIGHBOURS = 4

Segments = Sequence[Sequence[torch.Tensor]]
"""Segments of steps: the rows of each step, int64 (n,)."""


class FastvidOptions(VariantOptions, ImportanceOptions, SizeBudget):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": DEFAULT_KEEP}

    keep: float | None = Field(
        default=None, gt=0, le=1, description="Share of the item's tokens to keep; 0.1 where no budget is given."
    )
    importance: Importance = Field(
        default="meanq",
        description="What makes a token salient: 'meanq' the attention of the mean query, 'recv' the attention that it "
        "receives, 'cls' that of [CLS] if there is one, 'anticos' its unlikeness to the mean token.",
    )
    segments: int = Field(default=8, ge=1, description="Least number of segments, if there are as many steps.")
    tau: float = Field(
        default=0.9, ge=-1, le=1, description="A segment ends where the cosine of neighbouring steps is below this."
    )
    context_share: float = Field(
        default=0.4, ge=0, le=1, description="Share of the budget for tokens that others are merged into."
    )
    anchor_every: int = Field(
        default=4, ge=1, description="Every how many steps, from a segment's last back, one has tokens to merge into."
    )
    beta: float = Field(default=0.6, ge=0, le=1, description="Least weight of a token against the mean of the merged.")


@method(
    "fastvid",
    options=FastvidOptions,
    kind="merge",
    count="exact",
    paper="arXiv:2503.11187",
    needs_from=importance_signals,
    golden=("fastvid_ov",),
    code="LunarShen/FastVID @ a40a109c",
    licence="MIT",
    variants={
        "official": "shares are rounded down step by step and segment by segment, and what that loses is not given to "
        "others; a share above 0.45 or so is not reached",
        "fixed": "the budget is met to the token, and what finds no room as context goes to salient tokens",
    },
)
def fastvid(visual: VisualTokens, options: FastvidOptions) -> TokenSet:
    """Keep each step's salient tokens, and merge the rest of a segment into dense tokens of some steps.

    A view is cut into segments where neighbouring steps are least alike (their mean tokens are compared): at the
    ``segments - 1`` lowest cosines, and at every one below ``tau``. A part of the budget, 1 - ``context_share``, goes
    evenly to the tokens of each step that receive most attention; they stay as they are. The rest goes to every fourth
    step of a segment, counted from its last: the tokens there that are density peaks (DPC-KNN) become context, and
    every token of the segment that is not salient is averaged into the context token of each of these steps that it
    is most like. In a segment in which every step has context, each step merges its own tokens only.

    So a token can be averaged into several context tokens; it is assigned to the one that it is most like. Segments are
    found by mean tokens, as in the authors' version for Qwen2.5-VL; the one for LLaVA-OneVision, which the
    rest follows, takes the pooled output of SigLIP. Their code stops with an error where a video has fewer steps than
    segments or no context is left; here there are fewer then.

    The official share knows no ``max_tokens``: with that budget counts are those of 'fixed'.
    """
    segments = []
    for block in blocks(visual):
        means = frame_means(block.gather(visual.tokens), block.present)
        steps = [rows[rows >= 0] for rows in block.rows]
        ends = segment_ends(cosine(means[:-1], means[1:]), options.segments, options.tau)
        segments += [steps[start:stop] for start, stop in zip([0, *ends], ends)]
    return merge_segments(visual, options, segments)


def segment_ends(similarity: torch.Tensor, least: int, tau: float) -> list[int]:
    """Where segments end, the step after their last: ascending, T at the end.

    ``similarity``: float32 (T - 1,), of neighbouring steps. Cuts are the ``least - 1`` lowest and all below ``tau``.
    """
    cuts = top_k_mask(-similarity, least - 1) | (similarity < tau)
    return [*(torch.nonzero(cuts).flatten() + 1).tolist(), len(similarity) + 1]


def merge_segments(visual: VisualTokens, options: FastvidOptions, segments: Segments) -> TokenSet:
    """The method after the segments were found."""
    if options.variant == "official" and options.keep is not None:
        plans = _official_plans(visual, options, segments)
    else:
        count = rows_to_keep("fastvid", options, visual)
        available = int((~visual.structural).sum())
        if count == available:
            return unmerged(visual)
        plans = _plans(options, segments, count)
    scores = importance_of(visual, options)
    groups = Groups(visual)
    for steps, plan in zip(segments, plans):
        salient = [top_k_mask(scores[rows], count) for rows, count in zip(steps, plan.salient)]
        groups.add_alone(torch.cat([rows[chosen] for rows, chosen in zip(steps, salient)]))
        pools = [rows[~chosen] for rows, chosen in zip(steps, salient)]
        anchors = {step: _dense(visual.tokens, pools[step], count) for step, count in plan.context.items() if count}
        if plan.alone:
            for step, rows in anchors.items():
                _add_context(groups, visual.tokens, {0: rows}, [pools[step]], options.beta)
        elif anchors:
            _add_context(groups, visual.tokens, anchors, pools, options.beta)
    return groups.merged()


@dataclass(frozen=True)
class _Plan:
    """How many tokens of a segment's steps are kept."""

    salient: list[int]
    """By step."""
    context: dict[int, int]
    """For the steps that have some."""
    alone: bool
    """Whether these steps merge their own tokens only."""


def _anchor_steps(steps: int, every: int) -> range:
    return range((steps - 1) % every, steps, every)


def _official_plans(visual: VisualTokens, options: FastvidOptions, segments: Segments) -> list[_Plan]:
    sizes = [len(rows) for steps in segments for rows in steps]
    grid, total = grid_tokens(visual.views), sum(sizes)
    share = (options.keep or 0.0) if total == grid else min(1.0, (options.keep or 0.0) * grid / max(1, total))
    plans = []
    for steps in segments:
        # A token at least of each step: the authors' grids are too large for their shares to give none.
        kept = [max(1, int(len(rows) * share)) for rows in steps]
        context = [int(count * options.context_share) for count in kept]
        salient = [count - part for count, part in zip(kept, context)]
        places = _anchor_steps(len(steps), options.anchor_every)
        each = sum(context) // len(places)
        counts = {step: min(each, len(steps[step]) - salient[step]) for step in places}
        plans.append(_Plan(salient, counts, alone=all(each == context[step] for step in places)))
    return plans


def _plans(options: FastvidOptions, segments: Segments, count: int) -> list[_Plan]:
    """``count`` tokens in all: a division by size, first among all segments, then among the steps of each."""
    sizes = torch.tensor([len(rows) for steps in segments for rows in steps], dtype=torch.int64)
    context_total = round(count * options.context_share)
    salient = proportional(sizes, count - context_total)
    room = sizes - salient
    lengths = [len(steps) for steps in segments]
    in_segment = torch.stack([part.sum() for part in room.split(lengths)])
    context = torch.zeros_like(sizes)
    start = 0
    for length, share in zip(lengths, proportional(in_segment, context_total).tolist()):
        places = start + torch.tensor(_anchor_steps(length, options.anchor_every))
        context[places] = proportional(room[places], min(share, int(room[places].sum())))
        start += length
    salient += proportional(room - context, context_total - int(context.sum()))
    return [
        _Plan(
            kept.tolist(),
            {step: int(dense[step]) for step in _anchor_steps(len(kept), options.anchor_every)},
            alone=len(_anchor_steps(len(kept), options.anchor_every)) == len(kept),
        )
        for kept, dense in zip(salient.split(lengths), context.split(lengths))
    ]


def _dense(tokens: torch.Tensor, pool: torch.Tensor, count: int) -> torch.Tensor:
    """The ``count`` density peaks among the rows ``pool`` of a step, ascending."""
    return pool[DensityPeaks(tokens.index_select(0, pool), NEIGHBOURS).centres(count).sort().values]


def _add_context(
    groups: Groups, tokens: torch.Tensor, anchors: dict[int, torch.Tensor], pools: list[torch.Tensor], beta: float
) -> None:
    """Merge the rows of all ``pools`` into the anchors of each step, int64 (a,) by the number of their pool."""
    rows = torch.cat(list(anchors.values()))
    own = tokens[rows].float()
    numbers = torch.arange(len(rows)).split([len(its) for its in anchors.values()])
    # One column for each anchor; where a step has fewer than others, its first once more.
    columns = pad_sequence(list(numbers), batch_first=True, padding_value=-1)
    columns = torch.where(columns >= 0, columns, columns[:, :1])
    directions = F.normalize(own, dim=1)[columns.flatten()].T
    sums, sizes, assigned = torch.zeros_like(own), torch.zeros(len(rows), dtype=torch.int64), []
    longest = max(map(len, pools))
    gathered = torch.empty((longest, tokens.shape[1]), dtype=tokens.dtype)
    products = torch.empty((longest, columns.numel()))
    for step, pool in enumerate(pools):
        members = torch.index_select(tokens, 0, pool, out=gathered[: len(pool)]).float()
        # What the length of the member would change is the same for all anchors.
        likeness = torch.mm(members, directions, out=products[: len(pool)])
        likeness, chosen = likeness.view(-1, *columns.shape).max(dim=2)
        nearest = columns.gather(1, chosen.T)
        for of_step, (place, its), ours in zip(nearest, anchors.items(), numbers):
            if place == step:
                of_step[torch.searchsorted(pool, its)] = ours
            sums.index_add_(0, of_step, members)
        sizes += torch.bincount(nearest.flatten(), minlength=len(rows))
        assigned.append(nearest.T[torch.arange(len(pool)), likeness.argmax(dim=1)])
    weight = (1.0 / (sizes + 1)).clamp_min(beta).unsqueeze(1)
    blended = weight * own + (1 - weight) * sums / sizes.unsqueeze(1)
    groups.add(torch.cat(pools), torch.cat(assigned), rows, blended)
