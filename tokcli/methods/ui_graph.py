"""The regions of a screenshot: neighbouring tokens whose pixels are alike, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tokcli.methods.importance import numbers_of
from tokcli.methods.layout import blocks
from tokcli.ops.components import components
from tokcli.types import VisualTokens

SIGNAL = "neighbour_distance"
COPIES = 2
"""A still counts as two equal frames, as Qwen2-VL's processor makes of it."""


@dataclass(frozen=True)
class Regions:
    """Those of one frame of a view."""

    rows: torch.Tensor
    """int64 (n,), ascending: the rows that are there."""
    labels: torch.Tensor
    """int64 (n,): the region of each, numbered from 0."""


def regions_of(visual: VisualTokens, threshold: float, deviations: tuple[float, float, float]) -> Iterator[Regions]:
    """The regions of each frame of each view, in order.

    Neighbours are one region if their pixels in [0, 1], divided by the ``deviations`` of their channels, are less than
    ``threshold`` apart, by Euclidean distance over all pixels of both copies of the frame.
    """
    # A cache gives signals flat.
    squares = numbers_of(visual, SIGNAL).reshape(len(visual), 2, 3)
    distances = (COPIES * (squares / torch.tensor(deviations).square()).sum(dim=2)).sqrt()
    for block in blocks(visual):
        _, height, width = visual.views[block.view].grid
        for rows in block.rows:
            present = rows >= 0
            alike = (distances[rows.clamp_min(0)] < threshold) & present.unsqueeze(1)
            alike[:-1, 0] &= present[1:]
            alike[:-width, 1] &= present[width:]
            labels = components((height, width), alike[:, 0], alike[:, 1])[present]
            yield Regions(rows[present], torch.unique(labels, return_inverse=True)[1])
