"""Clusters of a picture's tokens, by one of three ways to find them and one of three ways to make a token of each."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Merge, StepMerging, shares_of
from tokcli.methods.expedit import clusters_of
from tokcli.methods.importance import ImportanceOptions, importance_of, importance_signals
from tokcli.methods.layout import take
from tokcli.methods.options import SeededOptions
from tokcli.methods.output import Groups
from tokcli.methods.tiles import Step, Tile
from tokcli.ops.density import DensityPeaks
from tokcli.ops.directions import Directions, cosine_kmeans, plus_plus, without_empty
from tokcli.ops.pooling import group_means, nearest_members
from tokcli.ops.rows import gathered
from tokcli.types import View, VisualTokens

TOLERANCE = 1e-6


class ClusterMergeOptions(SeededOptions, ImportanceOptions, SizeBudget):
    budget_required = True

    clusters: Literal["kmeans", "dpc-knn", "grid"] = Field(
        default="kmeans",
        description="'kmeans' by cosine, 'dpc-knn' around density peaks as in ppe, or 'grid', from its cells on as in "
        "expedit; that may give fewer clusters than asked for.",
    )
    aggregate: Literal["mean", "importance", "medoid"] = Field(
        default="mean",
        description="What a cluster becomes: the mean of its tokens, their mean by importance, or the token that is "
        "most like the mean.",
    )
    iterations: int = Field(default=20, ge=1, description="Most iterations of k-means.")
    neighbours: int = Field(
        default=5, ge=1, description="With dpc-knn: nearest tokens, itself among them, that make up a density."
    )


def _signals(options: ClusterMergeOptions) -> tuple[str, ...]:
    return importance_signals(options) if options.aggregate == "importance" else ()


@method(
    "cluster_merge",
    options=ClusterMergeOptions,
    kind="merge",
    count="at most",
    streaming=True,
    needs_from=_signals,
    experimental="it stands for VMTC, of which neither a text nor code was found: the name is all that it has of it",
)
def cluster_merge(options: ClusterMergeOptions, views: tuple[View, ...], generator: np.random.Generator) -> Stream:
    """Cluster each picture's tokens and make one token of each cluster.

    A cluster stands at its medoid, the token most like the mean of all of its own, where that is what it becomes; a
    mean stands at the token whose place is nearest to the mean of the places. k-means starts from tokens drawn with
    ``seed`` (k-means++) and compares by cosine; where a cluster loses all its tokens, the one that fits its own cluster
    worst becomes a cluster. Importance weighs tokens as they are; where a whole cluster has none, they count alike.
    Every picture is clustered by itself: each frame of a video, a still, its thumbnail, and each tile of its canvas.
    """

    def prepare(chunk: VisualTokens) -> Merge:
        importance = _weights(chunk, options)

        def merge(step: Step, count: int, groups: Groups) -> None:
            for tile, kept in zip(step.tiles, shares_of(step, count)):
                if kept == 0:
                    continue
                tokens = take(chunk.tokens, tile.rows).float()
                labels, found = _clusters(tokens, tile, kept, options, generator)
                means, _ = group_means(tokens, labels, found)
                closeness = torch.nn.functional.cosine_similarity(tokens, means[labels], dim=1)
                if options.aggregate == "medoid":
                    middles = nearest_members(labels, -closeness, found)
                    groups.add(tile.rows, labels, tile.rows[middles], gathered(chunk.tokens, tile.rows[middles]))
                    continue
                if importance is not None:
                    means = _weighted(tokens, labels, means, importance[tile.rows])
                places = tile.places.float()
                distances = (places - group_means(places, labels, found)[0][labels]).square().sum(dim=1)
                groups.add(tile.rows, labels, tile.rows[nearest_members(labels, distances, found)], means)

        return merge

    return StepMerging("cluster_merge", options, views, prepare)


def _weights(chunk: VisualTokens, options: ClusterMergeOptions) -> torch.Tensor | None:
    """float32 (N,), none below 0; None where all count alike."""
    if options.aggregate != "importance":
        return None
    scores = importance_of(chunk, options)
    # A cosine to the mean, with its sign changed: from -1, where a token is the mean, to 1.
    return scores + 1 if options.importance == "anticos" else scores


def _clusters(
    tokens: torch.Tensor, tile: Tile, count: int, options: ClusterMergeOptions, generator: np.random.Generator
) -> tuple[torch.Tensor, int]:
    """The cluster of each of a tile's float32 (n, D) tokens, int64 (n,), and how many there are, none empty."""
    if options.clusters == "dpc-knn":
        peaks = DensityPeaks(tokens, options.neighbours)
        return peaks.nearest(peaks.centres(count)), count
    if options.clusters == "grid":
        centroids, labels = clusters_of(tokens, tile, count, iterations=5, temperature=0.01, window=5)
        return labels, len(centroids)
    directions = Directions(tokens)
    start = directions.at(plus_plus(directions, count, generator))
    centroids, groups = cosine_kmeans(directions, start, max_iterations=options.iterations, tolerance=TOLERANCE)
    labels, _ = without_empty(directions.closeness(centroids, groups.labels), groups.labels, count)
    return labels, count


def _weighted(tokens: torch.Tensor, labels: torch.Tensor, means: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Means by weight, float32 (G, D); of groups that weigh nothing, those given."""
    totals = torch.zeros(len(means)).index_add_(0, labels, weights)
    sums = torch.zeros_like(means).index_add_(0, labels, tokens * weights.unsqueeze(1))
    weighs = (totals > 0).unsqueeze(1)
    return torch.where(weighs, sums / totals.clamp_min(torch.finfo(torch.float32).tiny).unsqueeze(1), means)
