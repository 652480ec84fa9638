"""ToDRE, its first stage: tokens that differ from one that matters, and from each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Choose, StepSelection
from tokcli.methods.importance import ImportanceOptions, importance_of, importance_signals
from tokcli.methods.tiles import Step
from tokcli.ops.diversity import max_min_order, min_sum_order, unit_of
from tokcli.types import View, VisualTokens


class TodreOptions(ImportanceOptions, SizeBudget):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.1}

    rule: Literal["max-sum", "k-center"] = Field(
        default="max-sum",
        description="Each next token: 'max-sum' that with the least sum of cosines with those chosen, 'k-center' the "
        "farthest from the nearest of them.",
    )


@method(
    "todre",
    options=TodreOptions,
    kind="select",
    count="exact",
    paper="arXiv:2505.18757",
    streaming=True,
    needs_from=importance_signals,
    golden=("todre_paper_derived",),
    experimental="the authors published no code: the golden cases are of an implementation from the paper's text",
)
def todre(options: TodreOptions, views: tuple[View, ...]) -> Stream:
    """Keep the token that matters most, and then tokens that are unlike those already kept.

    The paper begins with the token that [CLS] attends to most, ``importance=cls``, of the thumbnail if there is one.
    Its second version then adds the token with the least sum of cosines with those chosen (``rule=max-sum``), its first
    that which is farthest from the nearest of them (``rule=k-center``); they agree on few tokens. Ties go to the
    earlier token. Without a budget it keeps 10%.

    All tokens of a still are compared with one another. Of a video each frame is a still with a first token of its own,
    where the paper chooses over the whole clip. Left out: dropping all tokens at a late layer of the language model.
    """

    def prepare(chunk: VisualTokens) -> Choose:
        importance = importance_of(chunk, options)

        def choose(step: Step, count: int) -> torch.Tensor:
            rows = step.rows
            candidates = rows if step.thumbnail is None else step.thumbnail.rows
            pivot = candidates[importance[candidates].numpy().argmax()]
            first = int(torch.searchsorted(rows, pivot))
            unit = unit_of(chunk.tokens, rows)
            if options.rule == "k-center":
                return rows[max_min_order(unit, count, first=first)]
            return rows[min_sum_order(unit, count, first)]

        return choose

    return StepSelection("todre", options, views, prepare)
