"""ToMe: merge the most similar rows in every block of the tower (arXiv:2210.09461)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from pydantic import Field, model_validator

from tokcli.methods.base import in_tower, method
from tokcli.methods.tower_schedule import StepsOfR, numbers, ramp, steps_by_budget, steps_by_r
from tokcli.ops.block_attention import BlockAttention
from tokcli.ops.matching import Merging, bipartite_matching
from tokcli.ops.reducing import Act, InTower, Rows, Step, TowerShape


class TomeOptions(StepsOfR):
    own_budgets: ClassVar[tuple[str, ...]] = ("r", "schedule")
    default_budget: ClassVar[Mapping[str, float]] = {"r": 8}
    inflect: float = Field(
        default=0.0,
        ge=-1,
        le=1,
        description="With r: the first block merges r (1 - inflect), the last r (1 + inflect).",
    )
    schedule: str | None = Field(
        default=None, description="Tokens to merge in each block, a,b,..., in place of r; those that are missing are 0."
    )
    proportional: bool = Field(default=True, description="Whether rows get attention by how many they stand for.")

    @model_validator(mode="after")
    def _whole_numbers(self) -> TomeOptions:
        numbers("schedule", self.schedule or "")
        return self


def merge_similar(r: int, rows: Rows, seen: BlockAttention) -> Step:
    """Merge the ``r`` pairs whose keys are most alike, weighed by how many rows each stands for."""
    matching = bipartite_matching(seen.keys(), r, protected=rows.leading)
    return Step.merged(Merging.start(rows.states, rows.sizes).apply(matching, matching.official_order()))


def _plan(options: TomeOptions, shape: TowerShape) -> dict[int, Act]:
    steps = steps_by_budget("tome", options, shape)
    if steps is None:
        ramped = ramp(options.r or 0, options.inflect, len(shape.blocks))
        steps = steps_by_r(ramped if options.schedule is None else numbers("schedule", options.schedule), shape)
    return {block: partial(merge_similar, r) for block, r in steps.items()}


@method(
    "tome",
    options=TomeOptions,
    paper="arXiv:2210.09461",
    code="facebookresearch/ToMe af95e4b1",
    licence="CC-BY-NC-4.0",
    kind="merge",
    count="by the encoder",
    streaming=True,
    where=in_tower,
    golden=("tome",),
)
def tome(options: TomeOptions) -> InTower:
    """Merge the most similar tokens of a frame in every block of the vision tower.

    Between the attention and the MLP of a block, tokens at even places are compared with those at odd places by the
    mean of the heads' keys; the ``r`` pairs that are most alike become one token each, the mean weighed by how many
    tokens each stands for. [CLS] never merges. Later blocks, the projector and the language model work on what is left,
    so the tower itself becomes faster. A token has the place of the odd one that it merged into.
    """
    return InTower(partial(_plan, options), proportional=options.proportional)
