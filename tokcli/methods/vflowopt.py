"""VFlowOpt: the tokens that the tower's hubs look at, and of a tiled still the others merged cell by cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field, model_validator

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, rows_to_keep, share_asked
from tokcli.methods.importance import Importance, ImportanceOptions, importance_of, importance_signals, numbers_of
from tokcli.methods.options import VariantOptions
from tokcli.methods.output import Groups, unmerged
from tokcli.methods.tiles import tiled_steps
from tokcli.ops.hubs import SETTINGS, setting_for
from tokcli.ops.selection import top_k
from tokcli.types import TokenSet, VisualTokens

ENTROPY = "patch_entropy"


class VFlowOptOptions(ImportanceOptions, VariantOptions, SizeBudget):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.11662}

    importance: Importance = Field(
        default="hub",
        description="What ranks tokens: 'hub' the attention of the tokens that receive most, 'recv' the attention that "
        "they receive, 'cls' that of [CLS] if there is one, 'meanq' that of the mean query, 'probe' that of a pooling "
        "head if there is one, 'anticos' their unlikeness to the mean token.",
    )
    cell: float | None = Field(
        default=None,
        ge=1,
        description="Rows and columns of the cells in which tokens are merged; by default what the authors take for "
        "the nearest budget: 17.387, 15.581 or 11.757.",
    )
    entropy_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the entropy of a token's pixels beside its importance; 0 in all of the authors' "
        "settings.",
    )

    @model_validator(mode="after")
    def _no_ceiling(self) -> VFlowOptOptions:
        if self.variant == "official" and self.max_tokens is not None:
            raise ValueError("variant='official' meets no ceiling; give keep, or take variant='fixed'")
        return self


def _signals(options: VFlowOptOptions) -> tuple[str, ...]:
    return (*importance_signals(options), *((ENTROPY,) if options.entropy_weight else ()))


@method(
    "vflowopt",
    options=VFlowOptOptions,
    kind="merge",
    count="exact",
    paper="ICCV 2025",
    needs_from=_signals,
    code="sihany077/VFlowOpt @ 129eeefb",
    licence="CC BY-NC 4.0",
    golden=("vflowopt",),
    variants={
        "official": "of a tiled still somewhat more or fewer tokens are left than the share, by how many cells have a "
        "merged one",
        "fixed": "as many tokens are merged as meet the budget exactly; below a token for each cell none are",
    },
)
def vflowopt(visual: VisualTokens, options: VFlowOptOptions) -> TokenSet:
    """Keep the tokens that the tower's hubs look at; of a tiled still merge the others cell by cell.

    Hubs are tokens that receive many times the mean attention; what they attend to ranks the tokens, over all views
    or frames together. Of a still with tiles those that are not kept are not lost: the thumbnail and the canvas are
    divided into square cells, and what is to go from a cell becomes one token, the mean weighted by importance, at the
    place of the most important. Other stills and videos keep the best tokens as they are. Ties go to the earlier token.

    The authors found a threshold for hubs and a size of cells for each of three budgets. The one nearest to the share
    that is asked for is taken: theirs for 10, 25 and 50% leave 11.7, 26.5 and 72.3% in the tower, and later stages
    inside the language model drop the others. Without a budget it keeps the 11.7%. Where there is no hub the attention
    received ranks, where their code gives NaN. Left out: their search for settings, and those later stages. In their
    code the entropy is of normalised pixels that overflow; here it is of the pixels themselves.
    """
    importance = importance_of(visual, options)
    if options.entropy_weight:
        importance = with_entropy(visual, importance, options.entropy_weight)
    rows = torch.nonzero(~visual.structural).flatten()
    order = rows[top_k(importance[rows], len(rows))]
    side = options.cell or SETTINGS[setting_for(share_asked(options, visual.views))].cell
    cells = _cells(visual, order, side) if any(view.kind == "crop" for view in visual.views) else None
    low, recycle = _going(visual, options, cells, side, len(rows))
    if low == 0:
        return unmerged(visual)
    groups = Groups(visual)
    groups.add_alone(order[:-low].sort().values)
    if cells is not None and recycle:
        _merge_cells(visual, order[-low:], cells[-low:], importance, groups)
    return groups.merged()


def with_entropy(visual: VisualTokens, importance: torch.Tensor, weight: float) -> torch.Tensor:
    """Importance plus ``weight`` times the softmax of the entropy over the tokens of each picture: float32 (N,)."""
    entropy, total = numbers_of(visual, ENTROPY), importance.clone()
    for step in tiled_steps(visual):
        for tile in step.tiles:
            total[tile.rows] += weight * torch.softmax(entropy[tile.rows], dim=0)
    return total


def _cells(visual: VisualTokens, rows: torch.Tensor, side: float) -> torch.Tensor:
    """The cell that each of ``rows`` is in: int64 (n,), numbered from 0."""
    view, step, y, x = visual.coords[rows].to(torch.int64).unbind(dim=1)
    # In float32, as the authors divide.
    places = torch.stack([view, step, (y.float() / side).floor().long(), (x.float() / side).floor().long()], dim=1)
    return torch.unique(places, dim=0, return_inverse=True)[1]


def _going(
    visual: VisualTokens, options: VFlowOptOptions, cells: torch.Tensor | None, side: float, available: int
) -> tuple[int, bool]:
    """How many of the least important tokens go, and whether they are merged; ``cells`` has the most important first.

    Newlines count as tokens of a tiled still in the authors' share.
    """
    if options.variant == "official":
        share = 1.0 if options.keep is None else options.keep
        length = available if cells is None else len(visual)
        merged = 0 if cells is None or share == 1 else int(length / side**2)
        return min(available, round(length * (1 - share)) + merged), True
    count = rows_to_keep("vflowopt", options, visual)
    if cells is None or count == available:
        return available - count, False
    # One more token that goes leaves as many as before if it is the first of its cell, which gets a merged one.
    _, cell = torch.unique(cells.flip(0), return_inverse=True)
    firsts = torch.full((int(cell.max()) + 1,), available).scatter_reduce_(0, cell, torch.arange(available), "amin")
    left = available - 1 - torch.arange(available)
    left += torch.zeros_like(left).index_fill_(0, firsts, 1).cumsum(0)
    met = torch.nonzero(left <= count).flatten()
    return (int(met[0]) + 1, True) if len(met) else (available - count, False)


def _merge_cells(
    visual: VisualTokens, rows: torch.Tensor, cells: torch.Tensor, importance: torch.Tensor, groups: Groups
) -> None:
    """Make one token of the ``rows`` of each cell; the most important come first, and one of them is the anchor."""
    used, cell = torch.unique(cells, return_inverse=True)
    first = torch.full((len(used),), len(rows)).scatter_reduce_(0, cell, torch.arange(len(rows)), "amin")
    weights = importance[rows].clamp_min(0)
    totals = torch.zeros(len(used)).index_add_(0, cell, weights)
    weights = torch.where(totals[cell] > 0, weights, 1.0)
    totals = torch.zeros(len(used)).index_add_(0, cell, weights)
    shares = (weights / totals[cell]).unsqueeze(1)
    values = torch.zeros((len(used), visual.tokens.shape[1]))
    values.index_add_(0, cell, visual.tokens[rows].float() * shares)
    groups.add(rows, cell, rows[first], values)
