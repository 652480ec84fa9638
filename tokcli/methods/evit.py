"""EViT: keep what [CLS] looks at, and fuse the rest (arXiv:2202.07800)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field

from tokcli.methods.base import in_tower, method
from tokcli.methods.options import VariantOptions
from tokcli.methods.tower_schedule import AtBlocks, left_in_stages
from tokcli.ops.block_attention import BlockAttention
from tokcli.ops.reducing import PLACELESS, Act, InTower, Rows, Step, TowerShape


class EvitOptions(AtBlocks, VariantOptions):
    own_budgets: ClassVar[tuple[str, ...]] = ("keep_rate",)
    default_budget: ClassVar[Mapping[str, float]] = {"keep_rate": 0.7}
    keep_rate: float | None = Field(
        default=None, gt=0, le=1, description="Share of the tokens to keep in each stage, in place of keep."
    )
    fuse: bool = Field(default=True, description="Whether dropped tokens go on in one that stands for no place.")


def keep_attended(options: EvitOptions, count: int | None, rows: Rows, seen: BlockAttention) -> Step | None:
    """Keep the ``count`` most attended rows, or their share ``keep_rate``; a row made of the others follows them."""
    batch, length, width = rows.states.shape
    first = rows.leading
    if count is None:
        count = math.ceil((options.keep_rate or 1.0) * (length - first))
    if count >= length - first:
        return None
    score = seen.importance()[:, first:]
    order = score.sort(dim=1, descending=True, stable=True).indices
    kept, dropped = order[:, :count] + first, order[:, count:] + first
    leading = torch.arange(first, device=kept.device).expand(batch, -1)
    left = torch.cat([leading, kept], dim=1)
    if not options.fuse:
        return Step.selected(rows.states, left)
    weights = score.gather(1, order[:, count:])
    if options.variant == "fixed":
        weights = weights / weights.sum(dim=1, keepdim=True)
    others = rows.states.gather(1, dropped.unsqueeze(2).expand(-1, -1, width))
    fused = (others.float() * weights.unsqueeze(2)).sum(dim=1, keepdim=True)
    step = Step.selected(rows.states, left)
    placeless = rows.memory.get(PLACELESS, torch.zeros_like(rows.anchors, dtype=torch.bool)).gather(1, left)
    return Step(
        states=torch.cat([step.states, fused.to(step.states.dtype)], dim=1),
        # Where positions turn patches, it has those of the most attended one that it is made of.
        rows=torch.cat([left, dropped[:, :1]], dim=1),
        into=torch.where(step.into < 0, left.shape[1], step.into),
        memory={PLACELESS: torch.cat([placeless, torch.ones_like(placeless[:, :1])], dim=1)},
    )


def _plan(options: EvitOptions, shape: TowerShape) -> dict[int, Act]:
    stages = options.stages("evit", shape)
    counts: Sequence[int | None] = left_in_stages("evit", options, len(stages), shape) or [None] * len(stages)
    return {block: partial(keep_attended, options, count) for block, count in zip(stages, counts)}


@method(
    "evit",
    options=EvitOptions,
    paper="arXiv:2202.07800",
    code="youweiliang/evit 5ca95a7c",
    licence="Apache-2.0",
    kind="select",
    count="by the encoder",
    streaming=True,
    where=in_tower,
    variants={
        "official": "weighs the dropped tokens by attentions that do not add up to 1, so what is fused is short",
        "fixed": "weighs them by attentions that do",
    },
    golden=("evit",),
)
def evit(options: EvitOptions) -> InTower:
    """Keep tokens that [CLS] looks at in a few blocks of the tower, and fuse the others into one.

    The fused token goes on in the tower, competes in later stages like any other, and is left out in the end: it stands
    for no place. So a frame may be left with a token or two fewer than asked for. Towers without [CLS] go by the
    attention that all tokens give. The authors' figures are of models that were trained with it; without, more is lost.
    """
    return InTower(partial(_plan, options), merges=False, by_content=options.fuse)
