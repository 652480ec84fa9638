"""Baseline: the longest tokens."""

from __future__ import annotations

import torch

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Choose, StepSelection, best_of_each, shares_of
from tokcli.methods.layout import take
from tokcli.methods.tiles import Step
from tokcli.types import View, VisualTokens


class NormOptions(SizeBudget):
    budget_required = True


@method("norm", options=NormOptions, kind="select", count="exact", streaming=True)
def norm(options: NormOptions, views: tuple[View, ...]) -> Stream:
    """Keep of each picture the tokens with the largest Euclidean length.

    A baseline that any method has to beat that claims to know what matters. Ties go to the earlier token. Each frame of
    a video, still, thumbnail and tile is a picture of its own with the same share.
    """

    def prepare(chunk: VisualTokens) -> Choose:
        scores = torch.zeros(len(chunk))

        def choose(step: Step, count: int) -> torch.Tensor:
            rows = step.rows
            scores[rows] = torch.linalg.vector_norm(take(chunk.tokens, rows).float(), dim=1)
            return best_of_each(step, scores, shares_of(step, count))

        return choose

    return StepSelection("norm", options, views, prepare)
