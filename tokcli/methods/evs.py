"""EVS, Efficient Video Sampling: a fixed share of a video's tokens, those that changed most."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import torch
from pydantic import Field, model_validator

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, grid_tokens, rows_to_keep
from tokcli.methods.layout import Block, blocks
from tokcli.methods.options import VariantOptions
from tokcli.methods.output import select
from tokcli.ops.selection import top_k_mask
from tokcli.ops.similarity import cosine_to_previous
from tokcli.types import TokenSet, VisualTokens

FIRST_STEP = 255.0
"""The score of tokens that nothing comes before: above any dissimilarity."""


class EvsOptions(VariantOptions, SizeBudget):
    pruning_rate: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Share to drop, as vLLM's --video-pruning-rate; 0.7 where no budget is given.",
    )

    @model_validator(mode="before")
    @classmethod
    def _default_rate(cls, values: dict[str, Any]) -> dict[str, Any]:
        given = [name for name in ("keep", "max_tokens", "pruning_rate") if values.get(name) is not None]
        if "pruning_rate" in given and len(given) > 1:
            raise ValueError(f"{' and '.join(given)} cannot both be given; leave all but one out")
        return values if given else {**values, "pruning_rate": 0.7}


@method(
    "evs",
    options=EvsOptions,
    kind="select",
    count="exact",
    paper="arXiv:2510.14624",
    code="vllm 0.33.0, vllm/multimodal/video_prune/evs.py",
    licence="Apache-2.0 header and an NVIDIA notice in the same file",
    variants={
        "official": "the count is int(T * N * (1 - rate)) in floating point, which can lose a token (1 - 0.9 < 0.1)",
        "fixed": "the count is the share rounded to the nearest number, as for every method",
    },
)
def evs(visual: VisualTokens, options: EvsOptions) -> TokenSet:
    """Keep a fixed share of a video's tokens: those that changed most since the step before.

    The score is 1 - cosine with the step before; the first step of a view is kept whole, and so is a view with a
    single step. So the least that is kept is the first step: 1/T of the tokens. The budget covers all steps together,
    unlike dtd's threshold, which makes every item's length predictable. Ties go to the earlier token.

    After a method that left gaps, a token is compared with the last step that is left; one whose place was empty there
    counts as most unlike.
    """
    scores = torch.full((len(visual),), -torch.inf)
    whole = 0
    for block in blocks(visual):
        present = block.present
        scores[block.rows[present]] = _novelty(block, visual)[present]
        whole += int(present[0].sum())
    return select(visual, top_k_mask(scores, _count(options, visual, whole)))


def _novelty(block: Block, visual: VisualTokens) -> torch.Tensor:
    similarity = cosine_to_previous(block.gather(visual.tokens))
    if not block.complete:
        similarity[1:][~block.present[:-1]] = -1.0
    novelty = 1.0 - similarity
    novelty[0] = FIRST_STEP
    return novelty


def _count(options: EvsOptions, visual: VisualTokens, whole: int) -> int:
    if options.variant == "official" and options.max_tokens is None:
        # The order of this expression is the authors': their rounding is part of what it reproduces.
        rate = options.pruning_rate if options.keep is None else 1 - options.keep
        return max(whole, int(grid_tokens(visual.views) * (1 - (rate or 0.0))))
    if options.pruning_rate is not None:
        share = float(1 - Decimal(repr(options.pruning_rate)))
        options = options.model_copy(update={"keep": share})
    return rows_to_keep("evs", options, visual, floor=whole, floor_is="the first step whole")
