"""HoloV: a budget for every region of a picture, by attention and by how its tokens relate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget, share_count
from tokcli.methods.by_step import Choose, StepSelection, cut_off
from tokcli.methods.importance import ImportanceOptions, importance_of, importance_signals
from tokcli.methods.options import VariantOptions
from tokcli.methods.tiles import Step, Tile
from tokcli.ops.allocation import by_weight
from tokcli.ops.pooling import grid_cells, grid_shape_within
from tokcli.ops.rows import gathered
from tokcli.ops.selection import top_k, top_k_mask
from tokcli.types import View, VisualTokens

SCALE = 1000.0
"""Of the attention, in the authors' code."""
RELATION = 0.09
"""Weight of the relations beside the attention."""
EPSILON = 1e-6
NUMBERS_AT_ONCE = 1 << 22
"""Of tokens, or of their cosines: 16 MiB in float32."""


class HolovOptions(ImportanceOptions, VariantOptions, SizeBudget):
    # 64 of the 576 tokens of a picture.
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.1111}

    crops: int = Field(default=16, ge=1, description="Regions of a picture, or of all tokens with variant='official'.")


@method(
    "holov",
    options=HolovOptions,
    kind="select",
    count="exact",
    paper="NeurIPS 2025",
    streaming=True,
    needs_from=importance_signals,
    code="obananas/HoloV @ 1d2e65e9",
    licence="Apache-2.0",
    golden=("holov",),
    variants={
        "official": "regions are strips of the token list, tokens are chosen by attention alone, and what a full "
        "region cannot take is lost (the authors put zeros there)",
        "fixed": "regions are rectangles, tokens are chosen by the score that regions are ranked by, and what a full "
        "region cannot take goes to the others",
    },
)
def holov(options: HolovOptions, views: tuple[View, ...]) -> Stream:
    """Keep tokens in all regions of a picture, more where attention and relations are stronger.

    A token's score is its attention plus 0.09 times the variance of its cosines with the others of its region, scaled
    to the same mean. Regions share the budget by their mean scores. The paper ranks by the attention of [CLS]:
    ``importance=cls``. Ties go to the earlier token.

    Every picture has ``crops`` regions in a grid of about its own proportions: each frame of a video, a still, its
    thumbnail, each tile of its canvas; those of a still share one budget. Without a budget it keeps 11.1%, the 64 of
    576 tokens of the authors' code. Left out: looking again at what was dropped, inside the language model.
    """

    def prepare(chunk: VisualTokens) -> Choose:
        importance = importance_of(chunk, options)

        def choose(step: Step, count: int) -> torch.Tensor:
            if options.variant == "official":
                rows = torch.cat([tile.rows for tile in step.tiles])
                strips = [part for part in rows.tensor_split(options.crops) if len(part)]
                return official_rows(chunk.tokens, importance, strips, count)
            regions = [rows for tile in step.tiles for rows in _regions(tile, options.crops)]
            scores = torch.cat(region_scores(chunk.tokens, importance, regions))
            sizes = torch.tensor([len(rows) for rows in regions])
            number = torch.arange(len(sizes)).repeat_interleave(sizes)
            weights = torch.zeros(len(sizes)).index_add_(0, number, scores) / sizes
            counts = by_weight(weights - weights.min().clamp_max(0), count, sizes)
            return torch.cat(regions)[_best_of_each(scores, number, sizes, counts)]

        return choose

    count_of = cut_off if options.variant == "official" else share_count
    return StepSelection("holov", options, views, prepare, count_of=count_of)


def _regions(tile: Tile, count: int) -> list[torch.Tensor]:
    """The rows of each region of a tile that has any."""
    rows, columns = grid_shape_within(*tile.grid, count)
    y, x = tile.places.unbind(dim=1)
    number = grid_cells(tile.grid[0], rows)[y] * columns + grid_cells(tile.grid[1], columns)[x]
    order = torch.argsort(number, stable=True)
    sizes = torch.bincount(number, minlength=rows * columns)
    return [tile.rows[part] for part in order.split(sizes[sizes > 0].tolist())]


def _best_of_each(
    scores: torch.Tensor, number: torch.Tensor, sizes: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """Positions of the best of each region, int64, as many as ``counts`` says; ``number`` is ascending."""
    order = top_k(scores, len(scores))
    order = order[torch.argsort(number[order], stable=True)]
    rank = torch.arange(len(scores)) - (sizes.cumsum(0) - sizes)[number]
    return order[rank < counts[number]]


def region_scores(tokens: torch.Tensor, importance: torch.Tensor, regions: list[torch.Tensor]) -> list[torch.Tensor]:
    """Scores of the rows of each region, float32 of their number; regions of one size are worked on together."""
    scores: list[torch.Tensor] = [torch.zeros(0)] * len(regions)
    by_size: dict[int, list[int]] = {}
    for number, rows in enumerate(regions):
        by_size.setdefault(len(rows), []).append(number)
    for size, numbers in by_size.items():
        at_once = max(1, NUMBERS_AT_ONCE // (size * max(size, tokens.shape[1])))
        for first in range(0, len(numbers), at_once):
            some = numbers[first : first + at_once]
            rows = torch.stack([regions[number] for number in some])
            batch = gathered(tokens, rows.flatten()).float().view(len(some), size, -1)
            for number, found in zip(some, _scores(batch, importance[rows])):
                scores[number] = found
    return scores


def _scores(tokens: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
    """float32 (R, M), of float32 (R, M, D) tokens and (R, M) importance."""
    attention = importance * SCALE
    others = tokens.shape[1] - 1
    if others == 0:
        return attention
    cosines = tokens @ tokens.mT
    lengths = cosines.diagonal(dim1=1, dim2=2).sqrt() + EPSILON
    cosines /= lengths.unsqueeze(2)
    cosines /= lengths.unsqueeze(1)
    cosines.diagonal(dim1=1, dim2=2).zero_()
    means = cosines.sum(dim=2, keepdim=True) / others
    # The zero on the diagonal takes part, as in the authors' code.
    variances = (cosines - means).square_().sum(dim=2) / others
    variances *= attention.abs().mean(dim=1, keepdim=True) / (variances.abs().mean(dim=1, keepdim=True) + EPSILON)
    return attention + RELATION * variances


def official_rows(
    tokens: torch.Tensor, importance: torch.Tensor, strips: list[torch.Tensor], count: int
) -> torch.Tensor:
    """What the authors' code keeps, int64 (at most ``count``,), strip by strip, in their order."""
    scores = region_scores(tokens, importance, strips)
    # A single token is not scaled, so that it hardly counts beside strips of several.
    weights = torch.stack([score.mean() if len(score) > 1 else score[0] / SCALE for score in scores])
    shares = weights / (weights.sum() + EPSILON)
    counts = (shares * count).to(torch.int64)
    counts += top_k_mask(shares, count - int(counts.sum()))
    kept = [
        strip if k >= len(strip) else strip[top_k(importance[strip], k)] for strip, k in zip(strips, counts.tolist())
    ]
    return torch.cat(kept)[:count]
