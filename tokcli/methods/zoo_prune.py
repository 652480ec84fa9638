"""ZOO-Prune: tokens that the projector is sensitive to, and that differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Choose, StepSelection
from tokcli.methods.importance import numbers_of
from tokcli.methods.tiles import Step
from tokcli.ops.diversity import Cosines, unit_of
from tokcli.types import View, VisualTokens

SIGNAL = "projector_sensitivity"


class ZooPruneOptions(SizeBudget):
    # 64 of 576 tokens.
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.1111}


@method(
    "zoo_prune",
    options=ZooPruneOptions,
    kind="select",
    count="exact",
    paper="arXiv:2509.24837",
    streaming=True,
    needs={SIGNAL},
    code="AIM-SKKU/ZOO-Prune @ 13096a4a, without code",
    golden=("zoo_prune_paper_derived",),
    experimental="the authors published no code: the golden cases are of an implementation from the paper's equations",
)
def zoo_prune(options: ZooPruneOptions, views: tuple[View, ...]) -> Stream:
    """Keep tokens that the projector is sensitive to and that are unlike those already kept.

    The first is the most sensitive token; each next one has the largest product of its sensitivity, stretched to 0..1
    over the still, and 1 - its largest cosine with those kept. Ties go to the earlier token. All tokens of a still are
    compared with one another; of a video each frame is a still. Without a budget it keeps 11.1%, 64 of 576 tokens.

    The signal takes 128 passes of the projector, which on a CPU is more than the tower itself.
    """

    def prepare(chunk: VisualTokens) -> Choose:
        signal = numbers_of(chunk, SIGNAL)

        def choose(step: Step, count: int) -> torch.Tensor:
            rows = step.rows
            return rows[sensitive_order(unit_of(chunk.tokens, rows), signal[rows], count)]

        return choose

    return StepSelection("zoo_prune", options, views, prepare)


def sensitive_order(unit: torch.Tensor, values: torch.Tensor, count: int) -> torch.Tensor:
    """The order in which tokens are kept, int64 (count,): float32 (N, D) unit vectors and (N,) sensitivities."""
    lowest, highest = torch.aminmax(values.double())
    stretched = (values.double() - lowest) / (highest - lowest) if bool(highest > lowest) else torch.zeros(len(values))
    weights = stretched.float()
    cosines = Cosines(unit)
    nearest = torch.full((len(unit),), -torch.inf)
    scores = weights.clone()
    order = torch.zeros(count, dtype=torch.int64)
    chosen = torch.zeros(len(unit), dtype=torch.bool)
    for index in range(count):
        pick = int(scores.numpy().argmax())
        order[index] = pick
        chosen[pick] = True
        torch.maximum(nearest, cosines.row(pick, scores), out=nearest)
        scores = (weights * (1.0 - nearest)).masked_fill_(chosen, -torch.inf)
    return order
