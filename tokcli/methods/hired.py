"""HiRED: a budget for every tile of a still, from where the thumbnail draws attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field

from tokcli.errors import MethodError
from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget, share_count
from tokcli.methods.by_step import Choose, StepSelection, best_of_each, cut_off, shares_of
from tokcli.methods.importance import AttentionOptions, importance_of, importance_signals, layers_signal, numbers_of
from tokcli.methods.options import VariantOptions
from tokcli.methods.tiles import Step, region_sums
from tokcli.ops.allocation import by_weight
from tokcli.ops.selection import top_k, top_k_mask
from tokcli.types import View, VisualTokens


class HiredOptions(AttentionOptions, VariantOptions, SizeBudget):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.2}

    alpha: float = Field(default=0.5, ge=0, le=1, description="Share of the budget that goes to the thumbnail.")


def _signals(options: HiredOptions) -> tuple[str, ...]:
    return (*importance_signals(options), layers_signal(options))


@method(
    "hired",
    options=HiredOptions,
    kind="select",
    count="exact",
    paper="arXiv:2408.10945",
    streaming=True,
    needs_from=_signals,
    code="hasanar1f/HiRED @ 502d6dd7",
    licence="MIT",
    golden=("hired",),
    variants={
        "official": "a tile's budget is the number of the thumbnail's top tokens in a strip of whole rows, not where "
        "the tile is; what rounding and full tiles leave over is lost",
        "fixed": "a tile's budget follows the attention in its own region of the thumbnail, and all of it is used",
    },
)
def hired(options: HiredOptions, views: tuple[View, ...]) -> Stream:
    """Keep of each tile of a still as many tokens as its part of the thumbnail draws attention.

    The thumbnail keeps ``alpha`` of the budget; the rest is divided among the tiles by the attention that their region
    of the thumbnail gets in the tower's first block. In every tile those tokens stay that get most attention in the
    block that makes the features. The paper takes the attention of [CLS]: ``importance=cls``. In Qwen2.5-VL's tower
    the first block that sees the whole picture stands for the first. Ties go to the earlier token.

    A still without tiles and each frame of a video is one picture with all of the budget. Without a budget it keeps
    20%, the authors' default. The authors cut padding off after the choice and lose what was chosen of it; here it is
    cut off before.
    """

    def prepare(chunk: VisualTokens) -> Choose:
        last = importance_of(chunk, options)
        first = numbers_of(chunk, layers_signal(options), 0)

        def choose(step: Step, count: int) -> torch.Tensor:
            thumbnail = step.thumbnail
            if thumbnail is None or len(step.tiles) == 1:
                return best_of_each(step, last, shares_of(step, count))
            sizes = [len(tile.rows) for tile in step.parts]
            whole, parts = _halves(count, options.alpha, len(thumbnail.rows), sum(sizes))
            if options.variant == "official":
                budgets = _official_budgets(step, first[thumbnail.rows], options.alpha, parts)
            else:
                whole = count - parts
                budgets = by_weight(region_sums(step, thumbnail, first[thumbnail.rows]), parts, torch.tensor(sizes))
            kept = [thumbnail.rows[top_k(last[thumbnail.rows], whole)]]
            kept += [tile.rows[top_k(last[tile.rows], k)] for tile, k in zip(step.parts, budgets.tolist())]
            return torch.cat(kept)

        return choose

    count_of = cut_off if options.variant == "official" else share_count
    return StepSelection("hired", options, views, prepare, count_of=count_of)


def _halves(count: int, alpha: float, thumbnail: int, tiles: int) -> tuple[int, int]:
    """Tokens for the thumbnail and for all tiles, none above what there are."""
    whole = min(int(count * alpha), thumbnail)
    return whole, min(count - whole, tiles)


def _official_budgets(step: Step, first: torch.Tensor, alpha: float, total: int) -> torch.Tensor:
    """int64 (number of tiles,); ``first``: float32 (n,), the attention to the thumbnail's tokens in the first block."""
    parts = step.parts
    if total == 0:
        return torch.zeros(len(parts), dtype=torch.int64)
    if len(first) % len(parts):
        raise MethodError(
            f"method 'hired': variant='official' cuts the {len(first)} tokens of the thumbnail into {len(parts)} "
            "strips of equal size, which is not possible; take variant='fixed'"
        )
    marked = top_k_mask(first, int(len(first) * (1 - alpha)))
    counts = marked.view(len(parts), -1).sum(dim=1)
    # In float32 and cut off, as the authors do.
    budgets = (counts / counts.sum().clamp_min(1) * total).to(torch.int64)
    return torch.minimum(budgets, torch.tensor([len(tile.rows) for tile in parts]))
