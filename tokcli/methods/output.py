"""The two ways in which a method ends: rows were selected, or rows were merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch

from tokcli.ops.pooling import group_means
from tokcli.types import TokenSet, VisualTokens


def select(visual: VisualTokens, keep: torch.Tensor, stats: Mapping[str, npt.NDArray[Any]] | None = None) -> TokenSet:
    """Keep the rows where bool (N,) ``keep`` is true, and all structural ones, unchanged."""
    source = torch.nonzero(keep | visual.structural).flatten()
    everything = source.numel() == len(visual)
    return TokenSet(
        tokens=visual.tokens if everything else visual.tokens.index_select(0, source),
        coords=visual.coords if everything else visual.coords[source],
        mass=torch.ones(source.numel(), dtype=torch.float32),
        source=source,
        stats=stats or {},
    )


def merge(
    visual: VisualTokens,
    labels: torch.Tensor,
    anchors: torch.Tensor,
    stats: Mapping[str, npt.NDArray[Any]] | None = None,
    values: torch.Tensor | None = None,
) -> TokenSet:
    """Replace each group of rows by its mean, placed where its anchor is; structural rows stay as they are.

    ``labels``: int64 (N,), the group of each row, -1 for dropped; groups are numbered from 0 and none is empty.
    ``anchors``: int64 (G,), one member row of each group, which gives the coordinates.
    ``values``: (G, D) float, what each group becomes where that is not the mean of its rows.
    """
    structural = torch.nonzero(visual.structural).flatten()
    labels = labels.clone()
    labels[structural] = torch.arange(structural.numel()) + anchors.numel()
    source, order = torch.cat([anchors, structural]).sort()
    rank = torch.empty_like(order)
    rank[order] = torch.arange(order.numel())
    assignment = torch.where(labels >= 0, rank[labels.clamp_min(0)], -1)
    if values is None:
        tokens, sizes = group_means(visual.tokens, assignment, order.numel())
    else:
        tokens = values.to(visual.tokens.dtype)
        if structural.numel():
            tokens = torch.cat([tokens, visual.tokens[structural]])
        if bool((order.diff() != 1).any()):
            tokens = tokens.index_select(0, order)
        sizes = torch.bincount(assignment[assignment >= 0], minlength=order.numel())
    return TokenSet(
        tokens=tokens,
        coords=visual.coords[source],
        mass=sizes.to(torch.float32),
        source=source,
        assignment=assignment.to(torch.int32),
        stats=stats or {},
    )
