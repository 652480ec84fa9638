"""keyframes: whole frames of a video, chosen by what they show and not by a question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from tokcli.errors import MethodError
from tokcli.methods.base import FrameChoice, method
from tokcli.methods.budget import SizeBudget, rows_to_keep, share_count
from tokcli.methods.layout import frames_of
from tokcli.methods.output import select
from tokcli.ops.frames import Floats, Indices, by_clusters, by_cuts, evenly, unit_features
from tokcli.types import TokenSet, View, VisualTokens

DEFAULT_SHARE = 0.25


class KeyframesOptions(SizeBudget):
    own_budgets: ClassVar[tuple[str, ...]] = ("frames",)
    default_budget: ClassVar[Mapping[str, float]] = {"keep": DEFAULT_SHARE}

    frames: int | None = Field(
        default=None,
        ge=1,
        description="Temporal steps to keep, instead of a share; a step is two frames for Qwen's towers. Without any "
        "budget a quarter of the steps is kept.",
    )
    threshold: float | None = Field(
        default=None,
        gt=0,
        description="With mode=cuts: a cut is where two steps are farther apart than this, from 0 to 2 (pixels: 0 to "
        "1); what is kept follows from the content.",
    )
    mode: Literal["cluster", "cuts", "uniform"] = Field(
        default="cluster",
        description="One step of each cluster of similar ones, one of each scene between cuts, or at even distances.",
    )
    features: str = Field(
        default="tokens",
        min_length=1,
        description="What steps are compared by: 'tokens', 'pixels', 'preview' (the tower on small frames), or an "
        "image model, a folder or hub name. All but 'tokens' choose before the tower, which then encodes the chosen.",
    )

    @model_validator(mode="after")
    def _cuts(self) -> KeyframesOptions:
        if self.threshold is not None and self.mode != "cuts":
            raise ValueError(f"threshold needs mode='cuts', not mode={self.mode!r}")
        return self

    def choose(self, features: Floats, count: int | None) -> Indices:
        """``count`` of the (T, D) steps, or as many as the threshold makes it: their numbers, ascending."""
        count = None if count is None else min(count, len(features))
        if self.mode == "uniform" and count is not None:
            return evenly(len(features), count)
        if self.features != "pixels":
            features = unit_features(features)
        if self.mode == "cluster" and count is not None:
            return by_clusters(features, count)
        return by_cuts(features, count, self.threshold)


def _before_tower(options: KeyframesOptions) -> FrameChoice | None:
    if options.features == "tokens":
        return None

    def choose(features: Floats, view: View) -> Indices:
        return options.choose(features, _steps_of_clip(options, view))

    return FrameChoice(options.features, choose)


def _steps_of_clip(options: KeyframesOptions, view: View) -> int | None:
    """How many steps of a clip to keep, at least one; None where the threshold decides."""
    steps, height, width = view.grid
    if options.threshold is not None:
        return None
    if options.frames is not None:
        return options.frames
    per_step = height * width
    wanted = options.max_tokens or share_count(options.keep or 1.0, steps * per_step)
    if options.max_tokens is not None and wanted < per_step:
        raise MethodError(
            f"method 'keyframes' keeps at least a step: {per_step} tokens of this item, over max_tokens={wanted}; "
            "allow that many"
        )
    return max(1, wanted // per_step)


@method(
    "keyframes",
    options=KeyframesOptions,
    kind="select",
    count="at most",
    where=lambda options: "tokens" if options.features == "tokens" else "pixels",
    frame_choice=_before_tower,
)
def keyframes(visual: VisualTokens, options: KeyframesOptions) -> TokenSet:
    """Keep whole frames that stand for the others, chosen by what they show.

    For methods that come after it, ``keyframes,dtd``, or alone. Steps are compared by the mean of their tokens and
    clustered with FAISS's k-means; the step nearest to the middle of each cluster is kept. The start is a step and then
    always the one farthest from those chosen, so a short scene gets a cluster of its own and the result needs no seed.
    ``mode=cuts`` keeps the middle step of each scene, with a ``threshold`` as many as there are scenes; ``uniform``
    looks at nothing. The number of tokens is that of whole steps, so it is at most the budget, and one step is the
    least. Kept tokens have the places in time that they have in the whole clip.

    With ``features=tokens`` the tower encodes everything first. With ``pixels`` (means of 16 x 16 cells), ``preview``
    (the tower itself on frames with an eighth of the tokens) or an image model, steps are chosen before the tower, and
    those that are not chosen are never encoded; it must then be the first method, and works in `tokcli compress` only,
    on media. Frames wait on disk until the clip is read to its end.

    Pictures beside a video, thumbnails and crops are kept whole and count against the budget.
    """
    if options.features != "tokens":
        raise MethodError(
            f"method 'keyframes' with features={options.features!r} chooses before the encoder, and these are tokens; "
            "use it with `tokcli compress` on media, or features=tokens"
        )
    frames = frames_of(visual)
    moving = [frame.rows for frame in frames if frame.moving]
    keep = torch.zeros(len(visual), dtype=torch.bool)
    for frame in frames:
        keep[frame.rows] = not frame.moving
    if moving:
        features = np.stack([visual.tokens[rows].float().mean(dim=0).numpy() for rows in moving])
        for step in options.choose(features, _steps_of_tokens(visual, options, moving, int(keep.sum()))):
            keep[moving[step]] = True
    return select(visual, keep)


def _steps_of_tokens(
    visual: VisualTokens, options: KeyframesOptions, moving: list[torch.Tensor], always: int
) -> int | None:
    """How many of the ``moving`` steps to keep beside ``always`` tokens that are kept anyhow."""
    if options.threshold is not None:
        return None
    if options.frames is not None:
        return options.frames
    largest = max(len(rows) for rows in moving)
    count = rows_to_keep("keyframes", options, visual, floor=always + largest, floor_is="a step")
    # Steps may have lost tokens to a method before this one, and need not be of one size.
    everything = always + sum(len(rows) for rows in moving)
    return len(moving) if count == everything else max(1, (count - always) // largest)
