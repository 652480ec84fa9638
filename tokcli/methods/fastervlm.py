"""FasterVLM: of each picture the tokens that the vision tower itself looks at most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Choose, StepSelection, best_of_each, shares_of
from tokcli.methods.importance import ImportanceOptions, importance_of, importance_signals
from tokcli.methods.tiles import Step
from tokcli.types import View, VisualTokens


class FasterVlmOptions(ImportanceOptions, SizeBudget):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.1}


@method(
    "fastervlm",
    options=FasterVlmOptions,
    kind="select",
    count="exact",
    paper="arXiv:2412.01818",
    streaming=True,
    needs_from=importance_signals,
    code="Theia-4869/FasterVLM @ f5d5f120",
    licence="Apache-2.0",
    golden=("fastervlm",),
)
def fastervlm(options: FasterVlmOptions, views: tuple[View, ...]) -> Stream:
    """Keep of each picture the tokens that matter most to the vision tower.

    The paper ranks tokens by the attention of [CLS] in the block that makes the features: ``importance=cls``, for
    towers that have it. Every picture is ranked by itself and keeps the same share: each frame of a video, a still,
    its thumbnail, and each tile of its canvas. Ties go to the earlier token. Without a budget it keeps 10%, the 58 of
    576 tokens of the paper.

    Padding was cut off before, where the authors' tiles keep it and it takes part.
    """

    def prepare(chunk: VisualTokens) -> Choose:
        importance = importance_of(chunk, options)

        def choose(step: Step, count: int) -> torch.Tensor:
            return best_of_each(step, importance, shares_of(step, count))

        return choose

    return StepSelection("fastervlm", options, views, prepare)
