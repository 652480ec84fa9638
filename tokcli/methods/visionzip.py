"""VisionZip: of each picture the tokens that matter most, and a few that the others are merged into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget, share_count
from tokcli.methods.by_step import Merge, StepMerging, shares_of
from tokcli.methods.importance import ImportanceOptions, importance_of, importance_signals
from tokcli.methods.options import VariantOptions
from tokcli.methods.output import Groups, held
from tokcli.methods.tiles import Step
from tokcli.ops.contextual import contextual_merge
from tokcli.ops.pooling import group_means
from tokcli.ops.rows import gathered
from tokcli.ops.selection import top_k_mask
from tokcli.types import View, VisualTokens

DEFAULT_KEEP = 0.1111
CONTEXTUAL_SHARE = 0.15625


class VisionzipOptions(VariantOptions, ImportanceOptions, SizeBudget):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": DEFAULT_KEEP}

    keep: float | None = Field(
        default=None, gt=0, le=1, description="Share of the item's tokens to keep; 0.1111 where no budget is given."
    )
    contextual_share: float = Field(
        default=CONTEXTUAL_SHARE,
        ge=0,
        le=1,
        description="Share of a picture's budget for tokens that the others are merged into: 10 of 64 in the paper.",
    )


@method(
    "visionzip",
    options=VisionzipOptions,
    kind="merge",
    count="exact",
    paper="arXiv:2412.04467",
    streaming=True,
    needs={"head_mean_keys"},
    needs_from=importance_signals,
    golden=("visionzip",),
    code="dvlab-research/VisionZip @ 3151f6df",
    licence="Apache-2.0",
    variants={
        "official": "a contextual token is its target plus the mean of what went to it, about twice as long as a token",
        "fixed": "it is the mean of its target and all that went to it",
    },
)
def visionzip(options: VisionzipOptions, views: tuple[View, ...]) -> Stream:
    """Keep each picture's dominant tokens as they are, and merge the others into contextual ones.

    Dominant are those that matter most to the vision tower, for the paper those that [CLS] attends to most:
    ``importance=cls``, for towers that have it. Of the others, in the order of the grid, every few one is a target;
    each of the rest goes to the target whose key, the mean over the heads, is most like its own. A contextual token
    stands at its target. Every picture is treated by itself and keeps the same share: each frame of a video, a still,
    its thumbnail, and each tile of its canvas. Of two or more tokens one is contextual at least, unless
    ``contextual_share`` is 0; then the others are dropped.

    Without a budget it keeps a ninth: 64 of 576 tokens, 10 of them contextual. The authors give the language model
    [CLS] as well, which is no place of the picture and is left out here; their number of dominant tokens counts it.
    They merge what goes into the projector, and here, as in a cache, it is what comes out.
    """

    def prepare(chunk: VisualTokens) -> Merge:
        importance, keys = importance_of(chunk, options), chunk.signals["head_mean_keys"]

        def merge(step: Step, count: int, groups: Groups) -> None:
            for tile, kept in zip(step.tiles, shares_of(step, count)):
                if kept == 0:
                    continue
                contextual = _contextual_count(options, kept)
                dominant = top_k_mask(importance[tile.rows], kept - contextual)
                groups.add_alone(tile.rows[dominant])
                others = tile.rows[~dominant]
                if contextual == 0:
                    continue
                features = gathered(chunk.tokens, others).float()
                found = contextual_merge(features, keys[others], contextual)
                if options.variant == "official":
                    values = held(found.values, chunk.tokens.dtype)
                else:
                    values, _ = group_means(features, found.groups, len(found.targets))
                groups.add(others, found.groups, others[found.targets], values)

        return merge

    return StepMerging("visionzip", options, views, prepare)


def _contextual_count(options: VisionzipOptions, kept: int) -> int:
    if options.contextual_share == 0:
        return 0
    share = share_count(options.contextual_share, kept)
    return share if options.contextual_share == 1 else min(share, kept - 1)
