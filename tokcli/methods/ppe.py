"""PPE: clusters of a picture's tokens, each with the positions of several of its members."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field

from tokcli.methods.base import Stats, Stream, method
from tokcli.methods.budget import SizeBudget, share_count
from tokcli.methods.by_step import Merge, StepMerging, shares_of
from tokcli.methods.layout import take
from tokcli.methods.options import SeededOptions, VariantOptions
from tokcli.methods.output import Groups
from tokcli.methods.tiles import Step
from tokcli.ops.density import DensityPeaks
from tokcli.ops.pooling import nearest_members
from tokcli.types import TokenSet, View, VisualTokens

DEFAULT_KEEP = 0.45
LATER_NEIGHBOURS = 3
NOISE = 1e-6
POSITIONS = "ppe_positions"
"""The stat with the places of the members: int64 (K * P,), P for each kept row."""


class PpeOptions(VariantOptions, SeededOptions, SizeBudget):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": DEFAULT_KEEP}

    keep: float | None = Field(
        default=None, gt=0, le=1, description="Share of the item's tokens to keep; 0.45 where no budget is given."
    )
    positions: int = Field(
        default=8, ge=0, description="Members of a cluster whose places are stored with it; 0 stores the last one's."
    )
    stages: int = Field(default=1, ge=1, description="How often clusters are clustered again on the way to the budget.")
    neighbours: int = Field(
        default=5, ge=1, description="Nearest tokens, itself among them, that make up a density; 3 in later stages."
    )
    noise: bool = Field(
        default=False, description="Add a random 0 to 1e-6 to densities, as the authors do: chance decides ties."
    )


@method(
    "ppe",
    options=PpeOptions,
    kind="merge",
    count="exact",
    paper="ICLR 2026",
    streaming=True,
    golden=("ppe",),
    code="MouxiaoHuang/PPE @ 7b6aa7d2",
    licence="Apache-2.0",
    variants={
        "official": "the number of clusters is rounded up, a mean is the sum over the size + 1e-6, and later stages "
        "average clusters as if all were of one size",
        "fixed": "the number of clusters is the share rounded to the nearest number, and a token is the mean of all "
        "tokens that went into it",
    },
)
def ppe(options: PpeOptions, views: tuple[View, ...], generator: np.random.Generator) -> Stream:
    """Cluster each picture's tokens by density, and store the places of several members with each mean.

    Tokens with many near neighbours that are far from any denser one become centres (DPC-KNN), and all others go to the
    nearest. A cluster becomes its mean and stands at the member that is nearest to it; that is where every loader puts
    it. Every picture is clustered by itself: each frame of a video, a still, its thumbnail, each tile of its canvas.
    With ``stages`` the clusters are clustered again, each stage leaving the same share. The authors' language model
    gets the tokens of all stages, one after another; here it is those of the last.

    The paper gives a language model that was trained for it the positions of ``positions`` members, in turn over the
    parts of its rotary embedding. They are stored for it as the numbers ``ppe_positions`` of the item, so many for each
    kept token, in the order of the tokens: places counted over the grids of all views, ``(t * h + y) * w + x`` and the
    places of the views before. They are a cluster's members from the last one back, and from the last again
    where it has fewer; a later stage has those of the cluster that came last. A method that follows does not
    change them: they are those of the tokens that it got.
    """
    return _PpeStream(options, views, generator)


class _PpeStream(StepMerging):
    def __init__(self, options: PpeOptions, views: tuple[View, ...], generator: np.random.Generator) -> None:
        count_of = _rounded_up if options.variant == "official" else share_count
        super().__init__("ppe", options, views, self._of_chunk, count_of=count_of)
        self._options = options
        self._views = views
        self._generator = generator
        self._width = max(1, options.positions)
        self._lists = torch.zeros((0, self._width), dtype=torch.int64)
        self._kept_lists = [self._lists]

    def push(self, chunk: VisualTokens) -> TokenSet:
        # A row that stays alone has its own place only.
        self._lists = grid_places(chunk.coords, self._views).unsqueeze(1).repeat(1, self._width)
        kept = super().push(chunk)
        self._kept_lists.append(self._lists[kept.source])
        return kept

    def finish(self) -> Stats:
        return {POSITIONS: torch.cat(self._kept_lists).flatten().numpy()}

    def _of_chunk(self, chunk: VisualTokens) -> Merge:
        def merge(step: Step, count: int, groups: Groups) -> None:
            for tile, kept in zip(step.tiles, shares_of(step, count)):
                if kept == 0:
                    continue
                tokens = take(chunk.tokens, tile.rows).float()
                values, labels, lists = self._clustered(tokens, self._lists[tile.rows, :1], kept)
                distances = (tokens - values[labels]).square_().sum(dim=1)
                anchors = tile.rows[nearest_members(labels, distances, kept)]
                groups.add(tile.rows, labels, anchors, values)
                self._lists[anchors] = lists

        return merge

    def _clustered(
        self, tokens: torch.Tensor, lists: torch.Tensor, count: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The tokens of the last stage, float32 (count, D), which each row goes to, int64 (n,), and their lists.

        ``lists``: int64 (n, P), what is known of the places of each row; P of the result is ``positions``.
        """
        options, total = self._options, len(tokens)
        labels, sizes = torch.arange(total), torch.ones(total)
        for stage in range(1, options.stages + 1):
            target = max(count, round(total * (count / total) ** (stage / options.stages)))
            neighbours = options.neighbours if stage == 1 else LATER_NEIGHBOURS
            if neighbours > target:
                neighbours = min(3, max(target // 2, 1))
            noise = torch.from_numpy(self._generator.random(len(tokens))).float() * NOISE if options.noise else None
            peaks = DensityPeaks(tokens, neighbours, noise)
            into = peaks.nearest(peaks.centres(target))
            weights = sizes if options.variant == "fixed" else torch.ones_like(sizes)
            totals = torch.zeros(target).index_add_(0, into, weights)
            if options.variant == "official":
                totals += NOISE
            sums = torch.zeros((target, tokens.shape[1])).index_add_(0, into, tokens * weights.unsqueeze(1))
            tokens = sums / totals.unsqueeze(1)
            lists = last_members(lists, into, target, self._width)
            labels, sizes = into[labels], torch.zeros(target).index_add_(0, into, sizes)
        return tokens, labels, lists


def _rounded_up(share: float, count: int) -> int:
    """In floating point, as the authors."""
    return max(1, math.ceil(share * count))


def last_members(lists: torch.Tensor, labels: torch.Tensor, groups: int, width: int) -> torch.Tensor:
    """Lists of the groups, int64 (G, width), from those of their members from the last one back.

    ``lists``: int64 (n, P), ``width`` being a multiple of P. After the first member comes the last one again.
    """
    order = torch.sort(labels, stable=True).indices
    sizes = torch.bincount(labels, minlength=groups).unsqueeze(1)
    back = torch.arange(width // lists.shape[1]) % sizes
    return lists[order[sizes.cumsum(dim=0) - 1 - back]].flatten(1)


def grid_places(coords: torch.Tensor, views: tuple[View, ...]) -> torch.Tensor:
    """The number of each row's place, int64 (N,), counted over the grids of all views."""
    firsts = torch.tensor([0, *(view.num_tokens for view in views)]).cumsum(dim=0)
    heights, widths = (torch.tensor([view.grid[axis] for view in views]) for axis in (1, 2))
    view, step, y, x = coords.to(torch.int64).unbind(dim=1)
    return firsts[view] + (step * heights[view] + y) * widths[view] + x
