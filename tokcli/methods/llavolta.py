"""LLaVolta's visual context compressor: averages over runs of tokens in the order of the grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.options import VariantOptions
from tokcli.methods.output import Groups
from tokcli.methods.tiles import tiled_steps
from tokcli.types import TokenSet, VisualTokens


class LlavoltaOptions(VariantOptions, SizeBudget):
    own_budgets: ClassVar[tuple[str, ...]] = ("stride",)
    default_budget: ClassVar[Mapping[str, float]] = {"stride": 8}

    stride: int | None = Field(
        default=None, ge=1, description="Tokens that become one; 8 where no budget is given, and found by a budget."
    )


@method(
    "llavolta",
    options=LlavoltaOptions,
    kind="merge",
    count="at most",
    paper="arXiv:2406.20092",
    golden=("llavolta",),
    code="Beckschen/LLaVolta @ 31ec1516",
    licence="Apache-2.0",
    variants={
        "official": "tokens at the end that do not fill a run are dropped",
        "fixed": "they are a shorter run of their own",
    },
)
def llavolta(visual: VisualTokens, options: LlavoltaOptions) -> TokenSet:
    """Average every few tokens of a picture, row after row of its grid.

    The paper pools in one dimension, between two layers of the language model or before the first, which is done
    here. Runs go on from one row of the grid to the next where its width is no multiple of their length. A mean stands
    at the token in the middle of its run, the first of two. Every picture is pooled by itself: each frame of a video, a
    still, its thumbnail, and each tile of its canvas; one that is shorter than a run becomes one token.

    A budget is met by the shortest runs that suffice, so fewer tokens than asked for are normal, and one a picture is
    the least. ``pool2d`` averages over squares instead. The authors train their model for it, stage by stage.
    """
    pictures = [tile.rows for step in tiled_steps(visual) for tile in step.tiles]
    stride = options.stride
    if stride is None:
        floor_is = "a token of each picture"
        stride = _stride(pictures, rows_to_keep("llavolta", options, visual, floor=len(pictures), floor_is=floor_is))
    groups = Groups(visual)
    for rows in pictures:
        count = -(-len(rows) // stride)
        if options.variant == "official":
            count = max(1, len(rows) // stride)
        runs = torch.arange(len(rows)) // stride
        first = torch.arange(count) * stride
        middles = (first + (first + stride).clamp_max(len(rows)) - 1) // 2
        groups.add(rows, torch.where(runs < count, runs, -1), rows[middles])
    return groups.merged()


def _stride(pictures: list[torch.Tensor], count: int) -> int:
    """The shortest runs that leave at most ``count`` tokens."""
    sizes = torch.tensor([len(rows) for rows in pictures], dtype=torch.int64)
    stride = max(1, -(-int(sizes.sum()) // max(1, count)))
    while int((-(-sizes // stride)).sum()) > count:
        stride += 1
    return stride
