"""GlobalCom2: the thumbnail tells how much each tile of a still keeps, and helps to choose what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget, share_count
from tokcli.methods.by_step import Choose, StepSelection, best_of_each, cut_off, shares_of
from tokcli.methods.importance import ImportanceOptions, importance_of, importance_signals, numbers_of
from tokcli.methods.options import VariantOptions
from tokcli.methods.tiles import Step, on_grid, region_sums
from tokcli.ops.allocation import by_weight
from tokcli.ops.selection import top_k
from tokcli.ops.similarity import TINY
from tokcli.types import View, VisualTokens

LOGITS = "cls_logits"


class GlobalCom2Options(ImportanceOptions, VariantOptions, SizeBudget):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.25}

    temperature: float = Field(
        default=10.0, gt=0, description="The larger, the more alike are the shares that tiles keep."
    )


def _signals(options: GlobalCom2Options) -> tuple[str, ...]:
    return (LOGITS,) if options.variant == "official" else importance_signals(options)


@method(
    "globalcom2",
    options=GlobalCom2Options,
    kind="select",
    count="exact",
    paper="arXiv:2501.05179",
    streaming=True,
    needs_from=_signals,
    code="xuyang-liu16/GlobalCom2 @ 96b2d00b",
    licence="Apache-2.0",
    golden=("globalcom2",),
    variants={
        "official": "ranks by the logits of [CLS] in the tower's last block, whose sums are so large that one tile "
        "gets nearly all that is not shared out evenly; what a full tile cannot take is lost",
        "fixed": "ranks by importance, and all of the budget is used",
    },
)
def globalcom2(options: GlobalCom2Options, views: tuple[View, ...]) -> Stream:
    """Keep more of those tiles of a still whose region of the thumbnail matters more.

    The thumbnail keeps its share of the budget, the best tokens. A tile's share is larger by the softmax, over the
    tiles, of the sums of the importance in their regions of the thumbnail. In a tile those tokens stay that have the
    most of two scores, each at length 1 over the tile: their own importance, and that of their place in the thumbnail,
    stretched over the canvas. The paper ranks by the attention of [CLS], ``importance=cls``, and by
    ``importance=anticos`` where there is none. Ties go to the earlier token.

    A still without tiles and each frame of a video is one picture, of which the best tokens stay. Without a budget it
    keeps 25%, the authors' default.
    """

    def prepare(chunk: VisualTokens) -> Choose:
        official = options.variant == "official"
        importance = numbers_of(chunk, LOGITS) if official else importance_of(chunk, options)

        def choose(step: Step, count: int) -> torch.Tensor:
            thumbnail = step.thumbnail
            if thumbnail is None or len(step.tiles) == 1:
                return best_of_each(step, importance, shares_of(step, count))
            sizes = torch.tensor([len(tile.rows) for tile in step.parts])
            share = count / len(step)
            if official and options.keep is not None:
                share = options.keep
            sums = region_sums(step, thumbnail, importance[thumbnail.rows])
            if official:
                whole = int(len(thumbnail.rows) * share)
                counts = (sizes * tile_shares(sums, share, options.temperature)).to(torch.int64)
            else:
                tiles = min(count - int(len(thumbnail.rows) * share), int(sizes.sum()))
                whole = count - tiles
                counts = by_weight(sizes * (1 + _advantages(sums, options.temperature)), tiles, sizes)
            stretched = F.interpolate(
                on_grid(importance[thumbnail.rows], thumbnail)[None, None], step.canvas, mode="bilinear"
            )[0, 0]
            kept = [thumbnail.rows[top_k(importance[thumbnail.rows], whole)]]
            for tile, k in zip(step.parts, counts.tolist()):
                y, x = tile.spots.unbind(dim=1)
                kept.append(
                    tile.rows[top_k(_at_length_one(importance[tile.rows]) + _at_length_one(stretched[y, x]), k)]
                )
            return torch.cat(kept)

        return choose

    count_of = cut_off if options.variant == "official" else share_count
    return StepSelection("globalcom2", options, views, prepare, count_of=count_of)


def tile_shares(sums: torch.Tensor, share: float, temperature: float) -> torch.Tensor:
    """The share that each tile keeps where all together keep about ``share``: float64 (number of tiles,), at most 1."""
    return (share * (1 + _advantages(sums, temperature))).clamp_max(1)


def _advantages(sums: torch.Tensor, temperature: float) -> torch.Tensor:
    weights = torch.exp((sums - sums.max()) / temperature)
    portions = weights / (weights.sum() + 1e-8)
    return portions - portions.mean()


def _at_length_one(values: torch.Tensor) -> torch.Tensor:
    return values / torch.linalg.vector_norm(values).clamp_min(TINY)
