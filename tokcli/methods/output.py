"""The two ways in which a method ends: rows were selected, or rows were merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy.typing as npt
import torch

from tokcli.ops.pooling import group_means
from tokcli.ops.rows import gathered
from tokcli.types import TokenSet, VisualTokens


def select(visual: VisualTokens, keep: torch.Tensor, stats: Mapping[str, npt.NDArray[Any]] | None = None) -> TokenSet:
    """Keep the rows where bool (N,) ``keep`` is true, and all structural ones, unchanged."""
    source = torch.nonzero(keep | visual.structural).flatten()
    everything = source.numel() == len(visual)
    return TokenSet(
        tokens=visual.tokens if everything else gathered(visual.tokens, source),
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
    if not order.numel():  # a step for which a small budget leaves nothing
        return replace(select(visual, torch.zeros(len(visual), dtype=torch.bool)), assignment=labels.to(torch.int32))
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
            tokens = gathered(tokens, order)
        sizes = torch.bincount(assignment[assignment >= 0], minlength=order.numel())
    return TokenSet(
        tokens=tokens,
        coords=visual.coords[source],
        mass=sizes.to(torch.float32),
        source=source,
        assignment=assignment.to(torch.int32),
        stats=stats or {},
    )


class Groups:
    """Which rows become one token, some rows after others; :meth:`merged` is how a method ends then."""

    def __init__(self, visual: VisualTokens) -> None:
        self._visual = visual
        self.labels = torch.full((len(visual),), -1, dtype=torch.int64)
        """As :func:`merge` takes them."""
        self._anchors = [torch.zeros(0, dtype=torch.int64)]
        self._values: list[torch.Tensor] = []
        self._count = 0

    @property
    def anchors(self) -> torch.Tensor:
        return torch.cat(self._anchors)

    def add(
        self, rows: torch.Tensor, into: torch.Tensor, anchors: torch.Tensor, values: torch.Tensor | None = None
    ) -> None:
        """Take ``rows``, int64 of any shape, and make tokens of them.

        ``into``: int64, of that shape or one that goes with it: which of the anchors each row joins, -1 for dropped.
        ``anchors``: int64 (c,), a row for each token, which joins itself whatever ``into`` says. ``values``: (c, D)
        float, what they become; given always or never.
        """
        self.labels[rows] = torch.where(into >= 0, into + self._count, -1)
        self.labels[anchors] = self._count + torch.arange(len(anchors))
        self._anchors.append(anchors)
        self._count += len(anchors)
        if values is not None:
            self._values.append(values.to(self._visual.tokens.dtype))

    def add_alone(self, rows: torch.Tensor) -> None:
        """Keep each of ``rows``, int64 (n,), as it is, beside groups that have values."""
        self.add(rows, torch.arange(len(rows)), rows, gathered(self._visual.tokens, rows))

    def merged(self) -> TokenSet:
        return merge(self._visual, self.labels, self.anchors, values=torch.cat(self._values) if self._values else None)


def held(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Float values, none beyond what ``dtype`` can hold: for merged tokens that are longer than those they are of."""
    most = torch.finfo(dtype).max
    return values.clamp(-most, most).to(dtype)


def unmerged(visual: VisualTokens) -> TokenSet:
    """What a merging method gives that keeps all rows as they are."""
    groups = Groups(visual)
    groups.add_alone(torch.nonzero(~visual.structural).flatten())
    return groups.merged()
