"""Turbo: merge what is redundant and says little (arXiv:2407.11717)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from pydantic import Field

from tokcli.methods.base import in_tower, method
from tokcli.methods.tower_schedule import StepsOfR, steps_by_budget, steps_by_r
from tokcli.ops.block_attention import BlockAttention
from tokcli.ops.matching import Merging, bipartite_matching
from tokcli.ops.reducing import Act, InTower, Rows, Step, TowerShape


class TurboOptions(StepsOfR):
    default_budget: ClassVar[Mapping[str, float]] = {"r": 16}
    alpha: float = Field(default=5.0, ge=0, description="Weight of a token's value against its redundancy.")
    scale: float = Field(default=30.0, ge=0, description="What alpha is multiplied with; the paper's formula has 1.")
    fewest: int = Field(default=40, ge=0, description="With r: blocks with fewer tokens than this merge nothing.")
    proportional: bool = Field(default=True, description="Whether tokens get attention by how many they stand for.")


def merge_of_little_value(weight: float, r: int, rows: Rows, seen: BlockAttention) -> Step:
    """Merge ``r`` pairs by likeness less ``weight`` times what the even one of the pair is attended to."""
    penalty = seen.importance() * weight if weight else None
    matching = bipartite_matching(seen.keys(), r, protected=rows.leading, penalty=penalty)
    return Step.merged(Merging.start(rows.states, rows.sizes).apply(matching, matching.official_order()))


def _plan(options: TurboOptions, shape: TowerShape) -> dict[int, Act]:
    steps = steps_by_budget("turbo", options, shape)
    if steps is None:
        counts, left = [], shape.rows
        for _ in shape.blocks:
            enough = left + shape.leading >= options.fewest
            counts.append(min(options.r or 0, left // 2) if enough else 0)
            left -= counts[-1]
        steps = steps_by_r(counts, shape)
    return {block: partial(merge_of_little_value, options.alpha * options.scale, r) for block, r in steps.items()}


@method(
    "turbo",
    options=TurboOptions,
    paper="arXiv:2407.11717",
    code="anakin-skywalker-Joseph/Folder d4750b9e",
    licence="none given",
    kind="merge",
    count="by the encoder",
    streaming=True,
    where=in_tower,
    golden=("turbo",),
)
def turbo(options: TurboOptions) -> InTower:
    """Merge tokens that are alike and that [CLS] does not look at, in every block of the tower.

    As ``tome``, but a pair is worth merging by the cosine of its keys less ``alpha * scale`` times the attention that
    [CLS] gives to the even one of the two: what matters stays alone. In towers without [CLS] it is the attention that
    all tokens give; both are a share of 1.
    """
    return InTower(partial(_plan, options), proportional=options.proportional)
