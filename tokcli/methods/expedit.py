"""Expedit's clusters: they start as the cells of a grid and stay near them."""

from __future__ import annotations

import torch
from pydantic import Field

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Merge, StepMerging, shares_of
from tokcli.methods.layout import take
from tokcli.methods.output import Groups
from tokcli.methods.tiles import Step, Tile
from tokcli.ops.pooling import grid_shape_within, nearest_members
from tokcli.ops.superpixels import superpixels
from tokcli.types import View, VisualTokens


class ExpeditOptions(SizeBudget):
    budget_required = True

    iterations: int = Field(default=5, ge=1, description="How often tokens are shared among clusters.")
    temperature: float = Field(
        default=0.01, gt=0, description="Factor of the squared distances: larger shares tokens among fewer clusters."
    )
    window: int = Field(
        default=5, ge=1, description="A token is shared among the clusters of so many cells by so many around its own."
    )


@method(
    "expedit",
    options=ExpeditOptions,
    kind="merge",
    count="at most",
    paper="arXiv:2210.01035",
    streaming=True,
    golden=("expedit",),
    code="Expedit-LargeScale-Vision-Transformer/Expedit-SAM @ 75a1c30d",
    licence="Apache-2.0",
)
def expedit(options: ExpeditOptions, views: tuple[View, ...]) -> Stream:
    """Cluster each picture's tokens from the cells of a coarse grid on, and keep the clusters.

    A cluster starts as the average over a cell. Tokens are shared among the clusters around their own cell, by distance
    and softly, and clusters become the averages of their shares, five times. At last a token belongs to the nearest
    cluster. A cluster stands at the nearest of its tokens; one without any is left out, and the grid of cells has the
    proportions of the picture's, so fewer tokens than asked for are normal. Every picture is clustered by itself: each
    frame of a video, a still, its thumbnail, and each tile of its canvas.

    The paper clusters in the middle of a vision transformer, goes on with the clusters, and gives every place a mix of
    what became of them at the end. Here the clusters of finished tokens are the result. Its way back is
    ``tokcli.ops.superpixels.reconstructed``, where the authors' code divides by a root of squares instead of a sum.
    """

    def prepare(chunk: VisualTokens) -> Merge:
        def merge(step: Step, count: int, groups: Groups) -> None:
            for tile, kept in zip(step.tiles, shares_of(step, count)):
                if kept == 0:
                    continue
                tokens = take(chunk.tokens, tile.rows).float()
                centroids, labels = clusters_of(
                    tokens, tile, kept, options.iterations, options.temperature, options.window
                )
                distances = (tokens - centroids[labels]).square_().sum(dim=1)
                anchors = tile.rows[nearest_members(labels, distances, len(centroids))]
                groups.add(tile.rows, labels, anchors, centroids)

        return merge

    return StepMerging("expedit", options, views, prepare)


def clusters_of(
    tokens: torch.Tensor, tile: Tile, count: int, iterations: int, temperature: float, window: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """At most ``count`` clusters of a tile's float32 (n, D) tokens, none empty: float32 (C, D), int64 (n,) labels."""
    first = tile.places.amin(dim=0)
    height, width = (tile.places.amax(dim=0) - first + 1).tolist()
    place = (tile.places[:, 0] - first[0]) * width + tile.places[:, 1] - first[1]
    present = None
    if len(tokens) < height * width:
        present = torch.zeros(height * width, dtype=torch.bool).index_fill_(0, place, True)
        tokens = torch.zeros((height * width, tokens.shape[1])).index_copy_(0, place, tokens)
    found = superpixels(
        tokens.view(height, width, -1),
        grid_shape_within(height, width, count),
        iterations=iterations,
        temperature=temperature,
        window=window,
        present=None if present is None else present.view(height, width),
    )
    used, labels = torch.unique(found.labels[place], return_inverse=True)
    return found.centroids[used], labels
