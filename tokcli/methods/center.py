"""Baseline: tokens in the middle of the picture."""

from __future__ import annotations

import torch

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Choose, StepSelection, best_of_each, shares_of
from tokcli.methods.tiles import Step
from tokcli.types import View, VisualTokens


class CenterOptions(SizeBudget):
    budget_required = True


@method("center", options=CenterOptions, kind="select", count="exact", streaming=True)
def center(options: CenterOptions, views: tuple[View, ...]) -> Stream:
    """Keep of each picture the tokens nearest to its middle.

    A baseline that looks at no content. Ties go to the earlier token. Each frame of a video, still, thumbnail and tile
    is a picture of its own with the same share.
    """

    def prepare(chunk: VisualTokens) -> Choose:
        scores = torch.zeros(len(chunk), dtype=torch.int64)

        def choose(step: Step, count: int) -> torch.Tensor:
            for tile in step.tiles:
                last = torch.tensor(tile.grid) - 1
                scores[tile.rows] = -(2 * tile.places - last).square().sum(dim=1)
            return best_of_each(step, scores, shares_of(step, count))

        return choose

    return StepSelection("center", options, views, prepare)
