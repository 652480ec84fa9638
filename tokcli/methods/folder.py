"""FOLDER: the tokens of a picture, folded together after the encoder until few enough are left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Merge, StepMerging, shares_of
from tokcli.methods.layout import take
from tokcli.methods.options import VariantOptions
from tokcli.methods.output import Groups, held
from tokcli.methods.tiles import Step
from tokcli.ops.matching import Merging, bipartite_matching
from tokcli.types import View, VisualTokens

DEFAULT_KEEP = 0.34


class FolderOptions(VariantOptions, SizeBudget):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": DEFAULT_KEEP}

    keep: float | None = Field(
        default=None, gt=0, le=1, description="Share of the item's tokens to keep; 0.34 where no budget is given."
    )


@method(
    "folder",
    options=FolderOptions,
    kind="merge",
    count="exact",
    paper="arXiv:2501.02430",
    streaming=True,
    golden=("folder", "tome"),
    code="anakin-skywalker-Joseph/Folder @ d4750b9e",
    licence="none; nothing of it is in this package",
    variants={
        "official": "where a picture folds more than once, or loses less than a third of its tokens, a token becomes "
        "1 + ln(n) times as long when n went into it; in between it does not",
        "fixed": "tokens are the means of what went into them, and no longer",
    },
)
def folder(options: FolderOptions, views: tuple[View, ...]) -> Stream:
    """Fold each picture's tokens together: the most similar pairs become their mean, time after time.

    The tokens at even positions of a picture are matched with those at odd ones by cosine, and the most similar pairs
    merge (the matching of ToMe), at most half of the tokens at a time, until the picture has its share of the budget.
    A merged token is the mean of all that went into it, and stands at the token at the odd position. Those that are
    left stay in order, so what is even and odd in the next round are neighbours again.

    Every picture is folded by itself and keeps the same share: each frame of a video, a still, its thumbnail, and each
    tile of its canvas. Without a budget 34% are kept, the authors' milder setting for LLaVA-1.5. Their version inside
    its last block, which ranks by attention too, is not this one; here it is their function for finished features,
    which stops with an error where nothing is to merge.
    """

    def prepare(chunk: VisualTokens) -> Merge:
        def merge(step: Step, count: int, groups: Groups) -> None:
            for tile, kept in zip(step.tiles, shares_of(step, count)):
                if kept == 0:
                    continue
                r = len(tile.rows) - kept
                left = folded(take(chunk.tokens, tile.rows).float().unsqueeze(0), r)
                values = left.tokens[0]
                if options.variant == "official" and longer(len(tile.rows), r):
                    values = held(magnified(left)[0], chunk.tokens.dtype)
                groups.add(tile.rows, left.labels[0], tile.rows[left.anchors[0]], values)

        return merge

    return StepMerging("folder", options, views, prepare)


def folded(tokens: torch.Tensor, r: int, *, protected: int = 0) -> Merging:
    """Lists of (B, T, D) float32 tokens, ``r`` fewer of them, in the order that they had.

    ``protected``: how many of the first tokens never merge.
    """
    left = Merging.start(tokens)
    while r > 0 and left.tokens.shape[1] > 1 + protected:
        length = left.tokens.shape[1]
        # The last two of a list merge as well, where the authors' bound would leave them.
        matching = bipartite_matching(left.tokens, min(r, max(1, (length - 1) // 2)), protected=protected)
        left = left.apply(matching, matching.list_order())
        r -= length - left.tokens.shape[1]
    return left


def longer(length: int, r: int) -> bool:
    """Whether the authors' code makes merged tokens longer where ``r`` of ``length`` tokens merge away."""
    left_to_merge = 0 if r > (length - 1) // 2 else r
    return r > 0 and left_to_merge < (length - r) // 2


def magnified(left: Merging) -> torch.Tensor:
    """Tokens ``1 + ln(size)`` times as long: float32 (B, n, D)."""
    return left.tokens * (1 + left.sizes.log()).unsqueeze(2)
