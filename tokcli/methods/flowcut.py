"""FlowCut: prune by the flow of information through the tower (arXiv:2505.19536)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch

from tokcli.errors import MethodError
from tokcli.methods.base import in_tower, method
from tokcli.methods.options import VariantOptions
from tokcli.methods.tower_schedule import ShareOfFrame
from tokcli.ops.block_attention import BlockAttention
from tokcli.ops.reducing import Act, InTower, Rows, Step, TowerShape

CUMULATED = "flow"


class FlowcutOptions(ShareOfFrame, VariantOptions):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.333}


def flow_scores(attention: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """float32 (B, n): how much each patch tells, with [CLS].

    ``attention``: (B, n), what [CLS] gives to each, head mean. ``values``: (B, H, 1 + n, d), [CLS] first.
    """
    products = (values[:, :, :1] @ values.transpose(2, 3)).squeeze(2)
    alike = torch.softmax(products, dim=-1).mean(dim=1)[:, 1:]
    shares = attention / attention.sum(dim=1, keepdim=True) + alike / alike.sum(dim=1, keepdim=True)
    return shares * lengths(values)[:, 1:]


def lengths(values: torch.Tensor) -> torch.Tensor:
    """float32 (B, T): L1 norms of the heads' mean values, of (B, H, T, d)."""
    return values.mean(dim=1).abs().sum(dim=2)


def evenness(shares: torch.Tensor, variant: str) -> torch.Tensor:
    """float32 (B,): entropy of attentions (B, n) over that of equal ones."""
    shares = shares / shares.sum(dim=1, keepdim=True)
    terms = torch.special.entr(shares) if variant == "fixed" else -shares * shares.log()
    return terms.sum(dim=1) / math.log(max(2, shares.shape[1]))


def num_to_prune(count: int, target: int, later: int, even: torch.Tensor) -> int:
    """How many of ``count`` patches go where ``later`` blocks can still take some: the fewer the more even they are."""
    wanted = float(((count - target) / math.sqrt(later) * (1 - even**2)).max())
    if math.isnan(wanted):
        raise MethodError("method 'flowcut': an attention of zero has no logarithm; use variant=fixed")
    return round(wanted)


def _act(variant: str, later: int, target: int, rows: Rows, seen: BlockAttention) -> Step | None:
    first = rows.leading
    count = rows.states.shape[1] - first
    if count <= target:
        return None
    if first:
        attention = seen.importance()[:, first:]
        score = flow_scores(attention, seen.values())
    else:
        attention = seen.of_mean_query()
        score = attention * lengths(seen.values())
    if CUMULATED in rows.memory:
        score = 0.5 * rows.memory[CUMULATED][:, first:] + 0.5 * score
    left = count
    if later <= 0:
        left = target
    elif later % 2 == 0:
        left = max(count - num_to_prune(count, target, later, evenness(attention, variant)), target)
    kept = score.sort(dim=1, descending=True, stable=True).indices[:, :left].sort(dim=1).values
    leading = torch.arange(first, device=kept.device).expand(len(kept), -1)
    step = Step.selected(rows.states, torch.cat([leading, kept + first], dim=1))
    remembered = torch.cat([score.new_zeros(len(kept), first), score.gather(1, kept)], dim=1)
    return Step(step.states, step.rows, step.into, {CUMULATED: remembered})


def _plan(options: FlowcutOptions, shape: TowerShape) -> dict[int, Act]:
    target, blocks = options.rows_left("flowcut", shape) or shape.rows, len(shape.blocks)
    return {
        block: partial(_act, options.variant, blocks - 2 - number, target) for number, block in enumerate(shape.blocks)
    }


@method(
    "flowcut",
    options=FlowcutOptions,
    paper="arXiv:2505.19536",
    code="TungChintao/FlowCut a2ecd247",
    licence="Apache-2.0",
    kind="select",
    count="by the encoder",
    streaming=True,
    where=in_tower,
    variants={
        "official": "fails where an attention is zero, as happens in half precision",
        "fixed": "takes 0 ln 0 for 0",
    },
    golden=("flowcut",),
)
def flowcut(options: FlowcutOptions) -> InTower:
    """Prune tokens in every second block of the tower, by what flowed from each to [CLS] so far.

    A token counts by the attention of [CLS], the likeness of its value to that of [CLS], and the length of its value;
    the score of a block is averaged with those before. How many go in a block follows from how even the attentions are:
    many where [CLS] looks at few. The last but one of the blocks leaves ``keep`` of the frame's tokens. Towers without
    [CLS] go by the attention of the mean query and the length of values, for whole tokens, where the authors' code for
    Qwen2-VL drops patches and then merges what has come to stand together. Each frame goes by itself, as a batch of one
    in the authors' code.
    """
    return InTower(partial(_plan, options), merges=False, by_content=True)
