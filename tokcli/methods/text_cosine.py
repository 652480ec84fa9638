"""Baseline of query-guided selection: tokens that are like the words of the question."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.guided import Query, selector
from tokcli.methods.output import select
from tokcli.ops.selection import top_k_mask
from tokcli.types import TokenSet, VisualTokens


class TextCosineOptions(SizeBudget):
    budget_required = True
    over: Literal["mean", "max"] = Field(
        default="mean", description="A token's score: 'mean' or 'max' of its cosines with the words."
    )


@selector("text_cosine", options=TextCosineOptions)
def text_cosine(visual: VisualTokens, query: Query, options: TextCosineOptions) -> TokenSet:
    """Keep the K tokens with the largest cosine to the question's input embeddings.

    A baseline: visual tokens need not lie where words do, and methods that are guided by the question have to beat it.
    Ties go to the earlier token.
    """
    tokens = F.normalize(visual.tokens.float(), dim=-1)
    cosines = tokens @ F.normalize(query.embeddings.float(), dim=-1).T
    scores = cosines.mean(dim=1) if options.over == "mean" else cosines.amax(dim=1)
    scores[visual.structural] = -torch.inf
    return select(visual, top_k_mask(scores, rows_to_keep("text_cosine", options, visual)))
