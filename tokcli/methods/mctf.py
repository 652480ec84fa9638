"""MCTF: fuse tokens by similarity, attention and size (arXiv:2403.10030)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from tokcli.methods.base import in_tower, method
from tokcli.methods.tower_schedule import ShareOfFrame, steps_by_budget
from tokcli.ops.block_attention import BlockAttention
from tokcli.ops.fusion import Criteria, fuse
from tokcli.ops.reducing import Act, InTower, Rows, Step, TowerShape

FEWEST = 10
"""Tokens, [CLS] counted, below which ``r`` takes nothing away."""


class MctfOptions(ShareOfFrame):
    own_budgets: ClassVar[tuple[str, ...]] = ("r",)
    default_budget: ClassVar[Mapping[str, float]] = {"r": 16}
    r: float | None = Field(
        default=None, ge=0, description="Tokens to take away in each block but the first, below 1 a share; for keep."
    )
    tau_similarity: float = Field(default=1.0, ge=0, description="Temperature of likeness; 0 leaves it out.")
    tau_information: float = Field(default=20.0, ge=0, description="Temperature of little attention; 0 leaves it out.")
    tau_size: float = Field(default=40.0, ge=0, description="Temperature of small size; 0 leaves it out.")
    both_ways: bool = Field(default=True, description="Whether half of the tokens merge from odd to even places.")
    weigh_by: Literal["attention", "size", "mean", "max"] = Field(
        default="attention", description="What a fused token is the mean by; 'max' takes the largest of each channel."
    )


def count_by_r(r: float, length: int, protected: int) -> int:
    """How many of ``length`` tokens the authors' code takes away."""
    if length - r < FEWEST:
        r = length - FEWEST
    count = int((length - protected) * r) if r < 1 else int(r)
    return max(0, min(count, (length - protected) // 2))


def _fuse(options: MctfOptions, r: int, rows: Rows, seen: BlockAttention) -> Step:
    return fuse(
        rows.states,
        rows.sizes,
        seen.received(),
        r,
        Criteria(options.tau_similarity, options.tau_information, options.tau_size),
        protected=rows.leading,
        both_ways=options.both_ways,
        weigh_by=options.weigh_by,
    )


def _plan(options: MctfOptions, shape: TowerShape) -> dict[int, Act]:
    steps = steps_by_budget("mctf", options, shape)
    if steps is None:
        steps, left = {}, shape.rows
        for block in shape.blocks:
            if block > 0:
                steps[block] = count_by_r(options.r or 0.0, left + shape.leading, shape.leading)
                left -= steps[block]
    return {block: partial(_fuse, options, count) for block, count in steps.items() if count}


@method(
    "mctf",
    options=MctfOptions,
    paper="arXiv:2403.10030",
    code="mlvlab/MCTF 2004da0c",
    licence="MIT",
    kind="merge",
    count="by the encoder",
    streaming=True,
    where=in_tower,
    golden=("mctf",),
)
def mctf(options: MctfOptions) -> InTower:
    """Fuse tokens that are alike, get little attention and stand for few, inside the vision tower.

    The block's attention is computed once, for all of its tokens; it decides what is fused, is fused along with the
    tokens, and is then used. Half of the pairs merge into odd places, the other half back into even ones; a token is
    the mean by attention and size, at the place that it merged into.
    """
    return InTower(partial(_plan, options), when="input")
