"""VisionDrop: of each picture the tokens that matter, and the others merged into a few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Merge, StepMerging, shares_of
from tokcli.methods.importance import ImportanceOptions, importance_of, importance_signals
from tokcli.methods.options import VariantOptions
from tokcli.methods.output import Groups, held
from tokcli.methods.tiles import Step, Tile
from tokcli.ops.contextual import contextual_merge
from tokcli.ops.pooling import group_means
from tokcli.ops.selection import top_k_mask
from tokcli.types import View, VisualTokens

KEYS = "head_mean_keys"


class VisionDropOptions(ImportanceOptions, VariantOptions, SizeBudget):
    # 42 tokens that matter and 6 merged ones of 576.
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.0833}

    contextual_share: float = Field(
        default=0.125,
        ge=0,
        lt=1,
        description="Share of the budget for merged tokens, in place of those that are dropped.",
    )


@method(
    "visiondrop",
    options=VisionDropOptions,
    kind="merge",
    count="exact",
    paper="arXiv:2506.22283",
    streaming=True,
    needs={KEYS},
    needs_from=importance_signals,
    code="Ruixxxx/VisionDrop @ f7a94449",
    licence="Apache-2.0",
    golden=("visiondrop",),
    variants={
        "official": "a merged token is its target plus the mean of what went to it, about twice as long as a token",
        "fixed": "it is the mean of its target and all that went to it",
    },
)
def visiondrop(options: VisionDropOptions, views: tuple[View, ...]) -> Stream:
    """Keep of each picture the tokens that others look at most, and merge the rest into a few.

    Of the tokens that are not kept, some at even distances are targets; every other one goes to the target whose key
    is most like its own. Each frame of a video, still, thumbnail and tile is ranked by itself and keeps the same share.
    Ties go to the earlier token. Without a budget it keeps 8.3%, the authors' 42 tokens and 6 merged ones of 576.

    This is the paper's idea in the vision tower. The authors' code ranks by [CLS] there (``importance=cls``), and by
    the attention among visual tokens inside the language model, in three more stages, which a cache cannot do. Tokens
    stay in the order of the picture, where the authors put the merged ones last.
    """

    def prepare(chunk: VisualTokens) -> Merge:
        importance = importance_of(chunk, options)

        def merge(step: Step, count: int, groups: Groups) -> None:
            for tile, k in zip(step.tiles, shares_of(step, count)):
                if k:
                    _merge_tile(chunk, tile, importance, k, options, groups)

        return merge

    return StepMerging("visiondrop", options, views, prepare)


def _merge_tile(
    chunk: VisualTokens,
    tile: Tile,
    importance: torch.Tensor,
    count: int,
    options: VisionDropOptions,
    groups: Groups,
) -> None:
    contextual = round(count * options.contextual_share)
    dominant = top_k_mask(importance[tile.rows], count - contextual)
    groups.add_alone(tile.rows[dominant])
    rest = tile.rows[~dominant]
    if contextual:
        tokens = chunk.tokens[rest].float()
        merged = contextual_merge(tokens, chunk.signals[KEYS][rest], contextual)
        values = held(merged.values, chunk.tokens.dtype)
        if options.variant == "fixed":
            values, _ = group_means(tokens, merged.groups, contextual)
        groups.add(rest, merged.groups, rest[merged.targets], values)
