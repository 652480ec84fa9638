"""DivPrune: tokens that are as far from one another as can be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget, share_count
from tokcli.methods.by_step import Choose, StepSelection, rounded
from tokcli.methods.options import VariantOptions
from tokcli.methods.tiles import Step
from tokcli.ops.diversity import max_min_order, unit_of
from tokcli.types import View, VisualTokens


class DivPruneOptions(VariantOptions, SizeBudget):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.098}


@method(
    "divprune",
    options=DivPruneOptions,
    kind="select",
    count="exact",
    paper="arXiv:2503.02175",
    streaming=True,
    code="vbdi/divprune @ 799e2d95",
    licence="CC BY-NC 4.0",
    golden=("divprune",),
    variants={
        "official": "a token that was chosen stays in the race, so that among equal tokens it is chosen again and "
        "fewer are kept than asked for; the count is the share in floating point, rounded",
        "fixed": "a token is chosen once; the count is the share rounded as for every method",
    },
)
def divprune(options: DivPruneOptions, views: tuple[View, ...]) -> Stream:
    """Keep tokens that are as unlike one another as can be.

    The first is the token that is least like its most similar neighbour; each next one is that whose most similar
    token among those already kept is the least similar to it, by cosine. Needs nothing but the tokens. Ties go to the
    earlier token; a zero vector is like nothing. Without a budget it keeps 9.8%, the authors' default.

    All tokens of a still are compared with one another, thumbnail and canvas together, as they stand in the language
    model's input; newlines, which the authors compare too, are always kept. Of a video each frame is a still.
    """

    def prepare(chunk: VisualTokens) -> Choose:
        def choose(step: Step, count: int) -> torch.Tensor:
            rows = step.rows
            return rows[max_min_order(unit_of(chunk.tokens, rows), count, repeat=options.variant == "official")]

        return choose

    count_of = rounded if options.variant == "official" else share_count
    return StepSelection("divprune", options, views, prepare, count_of=count_of)
