"""AOT: anchors in every step that take in the others by optimal transport, and again from step to step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator

from tokcli.errors import MethodError
from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.importance import Importance, ImportanceOptions, importance_of, importance_signals
from tokcli.methods.layout import clips_of, take
from tokcli.methods.output import Groups
from tokcli.ops.allocation import proportional
from tokcli.ops.pooling import cell_centres, grid_cells
from tokcli.ops.selection import top_k_mask, top_k_masks
from tokcli.ops.transport import kernel_to_anchors, merge_into_anchors, sinkhorn, transport_over_time
from tokcli.types import TokenSet, VisualTokens

OFFICIAL_PLACES = 729
OFFICIAL_STEPS = 64
"""Most steps that the authors put into one batch, all of which stop iterating together."""
WINDOWS = 3
"""Windows along each side of a step."""


class AotOptions(ImportanceOptions, SizeBudget):
    variant: Literal["official", "fixed", "paper"] = Field(
        default="fixed", description="'official' repeats the authors' code; 'fixed' does not; 'paper' as published."
    )
    local_importance: Importance = Field(
        default="recv", description="As importance, for the half of the anchors that are chosen window by window."
    )
    anchors: int = Field(
        default=126, ge=1, description="Anchors of a step of 729 tokens, and in proportion, where no budget is given."
    )
    global_share: float = Field(default=0.5, ge=0, le=1, description="Share of the anchors chosen over the whole step.")
    survivors: float = Field(
        default=0.3, ge=0, le=1, description="Share of the anchors of a clip's later steps that stay tokens."
    )
    clip_steps: int = Field(default=4, ge=1, description="Steps in a clip; with 1 nothing is merged over time.")
    nearest_share: float = Field(
        default=0.1, ge=0, le=1, description="Weight of the plain mean of an anchor and the tokens nearest to it."
    )

    @model_validator(mode="after")
    def _budget_is_ours(self) -> AotOptions:
        if self.variant == "official" and self.budget_given:
            raise ValueError("variant='official' knows no budget; set anchors and survivors, or take variant='fixed'")
        return self


def _signals(options: AotOptions) -> tuple[str, ...]:
    return importance_signals(options) + importance_signals(_local(options))


def _local(options: AotOptions) -> AotOptions:
    return options.model_copy(update={"importance": options.local_importance})


@method(
    "aot",
    options=AotOptions,
    kind="merge",
    count="exact",
    paper="arXiv:2603.01400",
    needs_from=_signals,
    golden=("aot", "aot_temporal_ot", "aot_sinkhorn"),
    code="TyroneLi/AOT @ 88455ee3",
    licence="LICENSE file Apache-2.0, the README says MIT",
    variants={
        "official": "Sinkhorn's iteration stops after two or three rounds, windows lose anchors to rounding, and "
        "pooling to half the grid afterwards loses anchors that stand alone",
        "fixed": "the iteration runs until it changes little, all anchors are there, and what is given is taken as "
        "pooled already",
        "paper": "as fixed, and every token inside a step gives itself away entirely, whereas in the authors' code all "
        "tokens of a step together have the weight of one",
    },
)
def aot(visual: VisualTokens, options: AotOptions) -> TokenSet:
    """Choose anchors in every step by attention and merge the other tokens into them, then over time.

    Half of the anchors are the best of the windows of a 3x3 grid, half the best of the whole step. The others go into
    them by optimal transport, at a cost of unlikeness and distance. In a clip of four steps the anchors of the first
    then take in those of the later ones in the same way, but for the ``survivors`` that are least certain where to go.

    The authors rank by the attention that tokens receive in a shallow layer (for the windows) and in a deep one; here
    both rankings take ``importance`` and ``local_importance`` of the one layer that the tower tells of. Their code
    emits the anchors of a clip's first step twice, before and after merging; here there are only the merged ones, in
    all variants. A token counts as assigned to the anchor that it is most like, or that gets most of it over time;
    with 'official', to the cell of the halved grid that it lies in. 'official' needs complete steps.

    With ``keep`` or ``max_tokens`` the clips share the budget in proportion, at least one token each; first anchors
    and survivors divide it as the options say, and from the budget on at which all tokens of the first step are
    anchors, all that is left goes to survivors.
    """
    clips = clips_of(visual, options.clip_steps)
    groups = Groups(visual)
    for steps, plan in _merged_inside(visual, list(zip(clips, _plans(visual, clips, options))), options):
        left = _over_time(steps, plan, options)
        rows, into, anchors, tokens = (
            torch.cat([getattr(step, name) for step in left]) for name in ("rows", "into", "anchors", "tokens")
        )
        groups.add(rows, into, anchors, tokens)
    return groups.merged()


@dataclass(frozen=True)
class _Plan:
    """How many tokens the steps of a clip get."""

    anchors: list[int]
    survivors: list[int] | None
    """Of every step after the first; None: the share that the options name."""


@dataclass(frozen=True)
class _Step:
    """What is left of a step."""

    rows: torch.Tensor
    """int64 (n,): all of them."""
    anchors: torch.Tensor
    """int64 (m,): the rows that stay."""
    tokens: torch.Tensor
    """float64 (m, D): in that precision what comes out does not depend on the number of threads."""
    into: torch.Tensor
    """int64 (n,): which of what stays each row went into, in the step or, after merging over time, in the clip."""


def _plans(visual: VisualTokens, clips: list[list[torch.Tensor]], options: AotOptions) -> list[_Plan]:
    sizes = [[len(rows) for rows in clip] for clip in clips]
    if not options.budget_given:
        share = options.anchors / OFFICIAL_PLACES
        return [_Plan([min(size, max(1, round(share * size))) for size in clip], None) for clip in sizes]
    count = rows_to_keep("aot", options, visual, floor=len(clips), floor_is=f"a token for {options.clip_steps} steps")
    if not clips:
        return []
    budgets = proportional(torch.tensor([sum(clip) for clip in sizes]), count).tolist()
    return [_plan(clip, budget, options.survivors) for clip, budget in zip(sizes, budgets)]


def _plan(sizes: list[int], budget: int, survivors: float) -> _Plan:
    """Anchors and survivors that come out at ``budget`` tokens."""
    first, *later = sizes
    share = min(1.0, budget / (first + survivors * sum(later)))
    anchors = max(min(first, budget, max(1, round(share * first))), budget - sum(later))
    if not later:
        return _Plan([budget], [])
    stay = proportional(torch.tensor(later), budget - anchors).tolist()
    return _Plan([anchors, *(max(kept, 1, round(share * size)) for kept, size in zip(stay, later))], stay)


Clip = tuple[list[torch.Tensor], _Plan]


def _batches(visual: VisualTokens, clips: list[Clip], options: AotOptions) -> Iterator[list[Clip]]:
    """Clips whose steps are merged together: one by one, or those of a view as the authors do."""
    if options.variant != "official":
        yield from ([clip] for clip in clips)
        return
    at_a_time = max(1, OFFICIAL_STEPS // options.clip_steps)
    for view, of_view in groupby(clips, lambda clip: int(visual.coords[clip[0][0][0], 0])):
        together, (_, height, width) = list(of_view), visual.views[view].grid
        if any(len(rows) != height * width for rows in chain.from_iterable(steps for steps, _ in together)):
            raise MethodError("method 'aot' with variant='official' needs complete steps; take variant='fixed'")
        yield from (together[at : at + at_a_time] for at in range(0, len(together), at_a_time))


def _merged_inside(visual: VisualTokens, clips: list[Clip], options: AotOptions) -> Iterator[tuple[list[_Step], _Plan]]:
    """Every clip after merging inside its steps."""
    deep, shallow = importance_of(visual, options), importance_of(visual, _local(options))
    for batch in _batches(visual, clips, options):
        chosen = [
            (rows, _chosen(visual, rows, count, take(deep, rows), take(shallow, rows), options))
            for clip, plan in batch
            for rows, count in zip(clip, plan.anchors)
        ]
        together = [chosen] if options.variant == "official" else [[step] for step in chosen]
        steps = (step for some in together for step in _inside(visual, some, options))
        for clip, plan in batch:
            yield list(islice(steps, len(clip))), plan


def _places(visual: VisualTokens, rows: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
    """The (y, x) of rows of a step, int64 (n, 2), and the height and width of its grid."""
    coords = take(visual.coords, rows).long()
    _, height, width = visual.views[int(coords[0, 0])].grid
    return coords[:, 2:], (height, width)


def _chosen(
    visual: VisualTokens, rows: torch.Tensor, count: int, deep: torch.Tensor, shallow: torch.Tensor, options: AotOptions
) -> torch.Tensor:
    """Which rows of a step are anchors: bool (n,), ``count`` of them unless the authors' windows lose some."""
    places, (height, width) = _places(visual, rows)
    down, across = min(WINDOWS, height), min(WINDOWS, width)
    window = grid_cells(height, down)[places[:, 0]] * across + grid_cells(width, across)[places[:, 1]]
    inside = window == torch.arange(down * across).unsqueeze(1)
    local = int(count * (1 - options.global_share))
    quotas = inside.sum(1).clamp_max(local // (down * across))
    picked = top_k_masks(torch.where(inside, shallow, -torch.inf), quotas).any(0)
    rest = count - (local if options.variant == "official" else int(picked.sum()))
    return picked | top_k_mask(deep.masked_fill(picked, -torch.inf), rest)


def _inside(
    visual: VisualTokens, batch: list[tuple[torch.Tensor, torch.Tensor]], options: AotOptions
) -> Iterator[_Step]:
    """Merge the other rows of steps into their anchors; the steps of a batch stop iterating together."""
    anchors = [torch.nonzero(chosen).flatten() for _, chosen in batch]
    others = [torch.nonzero(~chosen).flatten() for _, chosen in batch]
    kernels, nearest = [], []
    for (rows, _), some, rest in zip(batch, anchors, others):
        places, size = _places(visual, rows)
        scaled = places.double() / (torch.tensor(size) - 1).clamp_min(1)
        kernel, most_like = kernel_to_anchors(take(visual.tokens, rows).double(), some, rest, scaled)
        kernels.append(kernel)
        nearest.append(most_like)
    plans = sinkhorn(torch.stack(kernels), relative=options.variant != "official")
    for (rows, _), some, rest, plan, most_like in zip(batch, anchors, others, plans, nearest):
        tokens = take(visual.tokens, rows).double()
        merged = tokens[some]
        if len(rest):
            shares = plan / plan.sum(1, keepdim=True) if options.variant == "paper" else plan
            merged = merge_into_anchors(tokens, some, rest, shares, most_like, options.nearest_share)
        if options.variant == "official":
            yield _pooled(visual, rows, some, torch.index_copy(tokens, 0, some, merged))
            continue
        into = torch.empty(len(rows), dtype=torch.int64)
        into[some], into[rest] = torch.arange(len(some)), most_like
        yield _Step(rows, rows[some], merged, into)


def _pooled(visual: VisualTokens, rows: torch.Tensor, anchors: torch.Tensor, tokens: torch.Tensor) -> _Step:
    """A complete step on the grid of half the size, where only cells are left that are half anchor or more."""
    _, (height, width) = _places(visual, rows)
    half = (-(-height // 2), -(-width // 2))
    mask = torch.zeros(len(rows), dtype=tokens.dtype).index_fill_(0, anchors, 1.0)
    planes = torch.cat([tokens, mask.unsqueeze(1)], dim=1).T.reshape(1, -1, height, width)
    cells = F.interpolate(planes, size=half, mode="bilinear", align_corners=False)[0].flatten(1)
    # A step that would lose all its anchors keeps its best cells.
    kept = cells[-1] >= cells[-1].max().clamp_max(0.5)
    centres = cell_centres(height, half[0]).unsqueeze(1) * width + cell_centres(width, half[1])
    cell = grid_cells(height, half[0]).unsqueeze(1) * half[1] + grid_cells(width, half[1])
    into = torch.where(kept, kept.cumsum(0) - 1, -1)[cell.flatten()]
    return _Step(rows, rows[centres.flatten()[kept]], cells[:-1, kept].T.contiguous(), into)


def _over_time(steps: list[_Step], plan: _Plan, options: AotOptions) -> list[_Step]:
    """Merge the later steps of a clip into the anchors of the first, but for survivors; ``into`` counts in the clip."""
    first, *later = steps
    anchors, count, left = first.tokens, len(first.anchors), []
    for distance, step in enumerate(later, start=1):
        anchors, stays, shares = transport_over_time(
            anchors,
            step.tokens,
            distance,
            options.survivors,
            kept=None if plan.survivors is None else plan.survivors[distance - 1],
            relative=options.variant != "official",
        )
        group = torch.where(stays, count + stays.cumsum(0) - 1, shares.argmax(1))
        into = torch.where(step.into >= 0, group[step.into], -1)
        left.append(_Step(step.rows, step.anchors[stays], step.tokens[stays], into))
        count += len(left[-1].anchors)
    return [replace(first, tokens=anchors), *left]
