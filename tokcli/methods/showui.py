"""ShowUI: fewer tokens of every flat region of a screenshot."""

from __future__ import annotations

import torch
from pydantic import Field

from tokcli.methods.base import Stats, Stream, method
from tokcli.methods.budget import Budgeted
from tokcli.methods.output import select
from tokcli.methods.ui_graph import SIGNAL, regions_of
from tokcli.ops.selection import evenly_spread_down
from tokcli.types import TokenSet, View, VisualTokens

DEVIATIONS = (0.26862954, 0.26130258, 0.27577711)
"""Of red, green and blue, by which CLIP's processor divides."""


class ShowUiOptions(Budgeted):
    threshold: float = Field(
        default=1.0, ge=0, description="Distance of neighbouring tokens' pixels below which they are one region."
    )
    skip_ratio: float = Field(default=0.5, ge=0, le=1, description="Share to drop of every region of several tokens.")


class FlatRegions:
    """Keeps tokens of each region, frame by frame."""

    def __init__(self, options: ShowUiOptions) -> None:
        self._options = options

    def push(self, chunk: VisualTokens) -> TokenSet:
        keep = torch.zeros(len(chunk), dtype=torch.bool)
        for regions in regions_of(chunk, self._options.threshold, DEVIATIONS):
            keep[regions.rows[retained(regions.labels, self._options.skip_ratio)]] = True
        return select(chunk, keep)

    def finish(self) -> Stats:
        return {}


@method(
    "showui",
    options=ShowUiOptions,
    kind="select",
    count="by content",
    paper="arXiv:2411.17465",
    streaming=True,
    needs={SIGNAL},
    code="showlab/ShowUI @ 21ed7cb2",
    licence="Apache-2.0",
    golden=("showui",),
)
def showui(options: ShowUiOptions, views: tuple[View, ...]) -> Stream:
    """Keep only some tokens of every region of a screenshot that looks the same throughout.

    Neighbouring tokens, side by side or one below the other, belong to one region if their pixels, normalised as for
    CLIP, are closer than ``threshold``. A region of one token keeps it; a larger one keeps all but ``skip_ratio`` of
    its tokens, at even distances in its raster order, and one at least. Every frame and view has regions of its own.

    The authors let the other tokens skip layers of the language model they train; here they are left out of the cache.
    Tokens that stay have the positions that they had. What the paper reports is after training with it.
    """
    return FlatRegions(options)


def retained(labels: torch.Tensor, skip_ratio: float) -> torch.Tensor:
    """Which tokens stay, bool (N,), by the int64 (N,) regions that they are in; -1 is in none, and stays."""
    keep = torch.ones(len(labels), dtype=torch.bool)
    order = torch.argsort(labels, stable=True)
    used, sizes = torch.unique_consecutive(labels[order], return_counts=True)
    for label, members in zip(used.tolist(), order.split(sizes.tolist())):
        count = len(members)
        if label >= 0 and count > 1:
            keep[members] = False
            keep[members[evenly_spread_down(count, max(1, count - round(count * skip_ratio)))]] = True
    return keep
