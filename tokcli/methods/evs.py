"""EVS, Efficient Video Sampling: a fixed share of a video's tokens, those that changed most."""

from __future__ import annotations

import torch

from tokcli.methods.base import method
from tokcli.methods.layout import Block, blocks
from tokcli.methods.output import select
from tokcli.methods.pruning_rate import PruningRateOptions, rows_after_pruning
from tokcli.ops.selection import top_k_mask
from tokcli.ops.similarity import cosine_to_previous
from tokcli.types import TokenSet, VisualTokens

FIRST_STEP = 255.0
"""The score of tokens that nothing comes before: above any dissimilarity."""


@method(
    "evs",
    options=PruningRateOptions,
    kind="select",
    count="exact",
    paper="arXiv:2510.14624",
    code="vllm 0.33.0, vllm/multimodal/video_prune/evs.py",
    licence="Apache-2.0 header and an NVIDIA notice in the same file",
    golden=("evs",),
    variants={
        "official": "the count is int(T * N * (1 - rate)) in floating point, which can lose a token (1 - 0.9 < 0.1)",
        "fixed": "the count is the share rounded to the nearest number, as for every method",
    },
)
def evs(visual: VisualTokens, options: PruningRateOptions) -> TokenSet:
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
    count = rows_after_pruning("evs", options, visual, floor=whole, floor_is="the first step whole")
    return select(visual, top_k_mask(scores, count))


def _novelty(block: Block, visual: VisualTokens) -> torch.Tensor:
    similarity = cosine_to_previous(block.gather(visual.tokens))
    if not block.complete:
        similarity[1:][~block.present[:-1]] = -1.0
    novelty = 1.0 - similarity
    novelty[0] = FIRST_STEP
    return novelty
