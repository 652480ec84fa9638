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
from tokcli.ops.selection import top_k, top_k_mask
from tokcli.types import View, VisualTokens

SCALE = 1000.0
"""Of the attention, in the authors' code."""
RELATION = 0.09
"""Weight of the relations beside the attention."""
EPSILON = 1e-6


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
                return rows[official_positions(chunk.tokens[rows], importance[rows], options.crops, count)]
            regions = [rows for tile in step.tiles for rows in _regions(tile, options.crops)]
            scores = [token_scores(chunk.tokens[rows], importance[rows]) for rows in regions]
            weights = torch.stack([score.mean() for score in scores])
            sizes = torch.tensor([len(rows) for rows in regions])
            counts = by_weight(weights - weights.min().clamp_max(0), count, sizes)
            return torch.cat([rows[top_k(score, k)] for rows, score, k in zip(regions, scores, counts.tolist())])

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


def token_scores(tokens: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
    """Scores of the tokens of one region: float32 (M,), of (M, D) float tokens and float32 (M,) importance."""
    attention = importance * SCALE
    others = len(tokens) - 1
    if others == 0:
        return attention
    values = tokens.float()
    unit = values / (torch.linalg.vector_norm(values, dim=1, keepdim=True) + EPSILON)
    cosines = unit @ unit.T
    cosines.fill_diagonal_(0)
    means = cosines.sum(dim=1, keepdim=True) / others
    # The zero on the diagonal takes part, as in the authors' code.
    variances = (cosines - means).square().sum(dim=1) / others
    variances *= attention.abs().mean() / (variances.abs().mean() + EPSILON)
    return attention + RELATION * variances


def official_positions(tokens: torch.Tensor, importance: torch.Tensor, crops: int, count: int) -> torch.Tensor:
    """What the authors' code keeps, int64 (at most ``count``,), region by region, in their order."""
    parts = [part for part in torch.arange(len(tokens)).tensor_split(crops) if len(part)]
    weights = torch.stack(
        [
            # A single token is not scaled, so that it hardly counts beside regions of several.
            token_scores(tokens[part], importance[part]).mean() if len(part) > 1 else importance[part[0]]
            for part in parts
        ]
    )
    shares = weights / (weights.sum() + EPSILON)
    counts = (shares * count).to(torch.int64)
    counts += top_k_mask(shares, count - int(counts.sum()))
    kept = [part if k >= len(part) else part[top_k(importance[part], k)] for part, k in zip(parts, counts.tolist())]
    return torch.cat(kept)[:count]
