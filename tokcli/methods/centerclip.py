"""CenterCLIP: the tokens of a few frames together, reduced to the middles of their clusters."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.layout import Block, blocks
from tokcli.methods.output import Groups
from tokcli.ops.allocation import proportional
from tokcli.ops.medoids import (
    affinity,
    farthest_points,
    k_medoids,
    pairwise_distances,
    shortened,
    spectral_coordinates,
)
from tokcli.ops.pooling import grid_cells
from tokcli.types import TokenSet, VisualTokens

MOST_POINTS = 4096
"""Of a segment: 128 MiB of distances."""

THRESHOLD = 1e-5


class CenterclipOptions(SizeBudget):
    algorithm: Literal["k-medoids", "spectral", "sparse", "pooling"] = Field(
        default="k-medoids",
        description="'k-medoids'; 'spectral', experimental, k-medoids of spectral coordinates; or, to compare with, "
        "'sparse' tokens at even distances and 'pooling' means over the frames of a segment.",
    )
    frames_per_segment: int = Field(default=2, ge=1, description="How many frames are clustered together.")
    distance: Literal["euclidean", "cosine"] = Field(default="euclidean", description="Distance between tokens.")
    normalize: bool = Field(default=False, description="Bring tokens to the same length before they are clustered.")
    aggregate: Literal["medoid", "mean"] = Field(
        default="medoid", description="What a cluster becomes: its medoid, or the mean of its tokens."
    )
    max_iterations: int = Field(default=100, ge=1, description="Most iterations of k-medoids.")
    sigma: float = Field(
        default=2.0, gt=0, description="Width of the affinity of 'spectral', in the distances of the tokens."
    )

    @model_validator(mode="after")
    def _pooling_has_no_budget(self) -> CenterclipOptions:
        if self.algorithm == "pooling" and (self.keep is not None or self.max_tokens is not None):
            raise ValueError("algorithm='pooling' keeps one frame a segment; set frames_per_segment and no budget")
        return self


@method(
    "centerclip",
    options=CenterclipOptions,
    kind="merge",
    count="exact",
    paper="arXiv:2205.00823",
    code="mzhaoshuai/CenterCLIP @ 886fe734",
    licence="CC-BY-NC-4.0",
    golden=("centerclip_kmedoids", "centerclip_module", "centerclip_spectral"),
)
def centerclip(visual: VisualTokens, options: CenterclipOptions) -> TokenSet:
    """Cluster the tokens of every few frames and keep the token in the middle of each cluster.

    A view is cut into segments of ``frames_per_segment`` frames (of nearly the same length where they do not divide
    it). In each, k-medoids starts from the longest token, then always the farthest from those chosen. Without a budget
    a segment keeps as many tokens as one frame has; a budget is shared out by the size of the segments, and a token of
    each is the least that is kept.

    The authors cluster inside CLIP, between two blocks, and train on; here the tokens are those that the language
    model gets. They are clustered in float64 with exact distances, because clusters of two tokens are ties, which in
    the authors' float32 are decided by rounding; segments do not influence each other. A segment has at most 4096
    tokens: it gets fewer frames, and a larger frame is divided.

    'spectral' depends on rounding so much that the tokens it keeps may differ from machine to machine, and its
    ``sigma`` must fit the distances of the tokens, or no two of them are related.
    """
    segments = [rows for block in blocks(visual) for rows in _segments(block, options)]
    means = options.aggregate == "mean" or options.algorithm == "pooling"
    groups = Groups(visual)
    for rows, count in zip(segments, _counts(visual, segments, options)):
        members, into = _clusters(visual, rows, count, options)
        middles = rows[members]
        groups.add(rows, into, middles, None if means else visual.tokens[middles])
    return groups.merged()


def _segments(block: Block, options: CenterclipOptions) -> list[torch.Tensor]:
    """The rows of each segment: int64 (n,), ascending, n at least 1."""
    steps, places = block.rows.shape
    pieces = max(-(-steps // options.frames_per_segment), -(-steps * places // MOST_POINTS))
    whole = places if pieces <= steps else 1
    sizes = torch.bincount(grid_cells(steps * places // whole, pieces)) * whole
    parts = [part[part >= 0] for part in block.rows.flatten().split(sizes.tolist())]
    return [part for part in parts if len(part) > 0]


def _counts(visual: VisualTokens, segments: list[torch.Tensor], options: CenterclipOptions) -> list[int]:
    """How many tokens to keep of each segment."""
    if not options.budget_given:
        steps = [len(visual.coords[rows, 1].unique()) for rows in segments]
        return [-(-len(rows) // frames) for rows, frames in zip(segments, steps)]
    count = rows_to_keep("centerclip", options, visual, floor=len(segments), floor_is="a token of every segment")
    counts: list[int] = proportional(torch.tensor([len(rows) for rows in segments]), count).tolist()
    return counts


def _clusters(
    visual: VisualTokens, rows: torch.Tensor, count: int, options: CenterclipOptions
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a segment's n rows: int64 (k,), those that stay, and int64 (n,), the one of these that each goes to."""
    everything = torch.arange(len(rows))
    if options.algorithm == "pooling":
        places, groups = visual.coords[rows, 2:].unique(dim=0, return_inverse=True)
        first = torch.full((len(places),), len(rows)).scatter_reduce_(0, groups, everything, "amin")
        return first, groups
    if count == len(rows):
        return everything, everything
    if options.algorithm == "sparse":
        # The middles of as many equal parts: int(tick / 2 + tick * i) with tick = n / k, without its rounding.
        members = (2 * torch.arange(count) + 1) * len(rows) // (2 * count)
        return members, torch.full_like(rows, -1).index_copy_(0, members, torch.arange(count))
    tokens = visual.tokens[rows].double()
    lengths = torch.linalg.vector_norm(tokens, dim=1)
    points = shortened(tokens) if options.normalize else tokens
    if options.algorithm == "spectral":
        points = spectral_coordinates(affinity(points, options.sigma), count)
        # All have the same length, so the longest is a matter of chance: take the most central one.
        lengths = -torch.linalg.vector_norm(points - points.mean(dim=0), dim=1)
    distances = pairwise_distances(points, options.distance)
    start = farthest_points(distances, count, int(lengths.argmax()))
    return k_medoids(points, distances, start, max_iterations=options.max_iterations, threshold=THRESHOLD)
