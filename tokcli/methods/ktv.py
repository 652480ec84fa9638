"""KTV: a few keyframes, and of each its key tokens."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.importance import ImportanceOptions, importance_of, importance_signals
from tokcli.methods.layout import Frame, frames_of
from tokcli.methods.options import VariantOptions
from tokcli.methods.output import select
from tokcli.ops.allocation import proportional
from tokcli.ops.kmeans import Points, kmeans
from tokcli.ops.selection import evenly_spaced, top_k
from tokcli.ops.similarity import TINY
from tokcli.types import TokenSet, VisualTokens

TOKENS_PER_KEYFRAME = 156
"""Of the authors' budgets: 936 tokens of 6 keyframes, 1872 of 12."""

MOST_FRAMES = 5400
RESTARTS = 10

SEED = 0
"""Of scikit-learn's KMeans in the authors' code."""


class KtvOptions(ImportanceOptions, VariantOptions, SizeBudget):
    keyframes: int = Field(
        default=6, ge=1, description="How many frames to choose; the authors take 12 for long videos."
    )
    alpha: float = Field(
        default=0.2, ge=0, le=1, description="Weight of a token's importance; the rest is that of its unlikeness."
    )
    features: Literal["tokens", "pre_projector"] = Field(
        default="tokens",
        description="What frames and tokens are compared by: the tokens, or the tower's features before the projector.",
    )


def _signals(options: KtvOptions) -> tuple[str, ...]:
    return (*importance_signals(options), *(("pre_projector",) if options.features == "pre_projector" else ()))


@method(
    "ktv",
    options=KtvOptions,
    kind="select",
    count="exact",
    paper="arXiv:2602.03615",
    needs_from=_signals,
    code="hktk07/KTV @ d77f844a",
    licence="none at the repository's root; the LLaVA inside is Apache-2.0",
    golden=("ktv_keyframes", "ktv_tokens"),
    variants={
        "official": "if two clusters have the same nearest frame, frames at even distances replace all keyframes; "
        "the number of keyframes is fixed, and tokens that do not divide among them are lost",
        "fixed": "only the second of the two takes its next nearest frame; a budget is met exactly, with more "
        "keyframes where those asked for have too few tokens",
    },
)
def ktv(visual: VisualTokens, options: KtvOptions) -> TokenSet:
    """Keep a few keyframes of a video, and of each the tokens that matter and differ most.

    Frames are clustered by k-means (ten restarts; at most 5400 frames, taken evenly), and the frame nearest to the
    middle of each cluster is a keyframe. Every keyframe gets the same number of tokens: those with the highest
    ``alpha * importance + (1 - alpha) * (1 - redundancy)``, where the redundancy of a token is its mean cosine with
    the others of its frame, both stretched to 0..1 by frame. Ties go to the earlier frame or token. Without a budget,
    each of the 6 keyframes keeps 156 tokens, 936 in all as in the paper.

    The authors describe a frame by DINOv2 and measure tokens on CLIP's features before the projector, with the
    attention logits of [CLS]. Here a frame is described by the mean of its tokens (or of the features before the
    projector, with ``features=pre_projector``), and ``importance`` chooses the signal. Left out: giving more tokens
    to keyframes that resemble the question, which an offline cache does not know.

    Pictures beside a video, thumbnails and crops take no part in the choice of keyframes: they count as chosen.
    """
    frames = frames_of(visual)
    if not frames:
        return select(visual, torch.zeros(len(visual), dtype=torch.bool))
    features = visual.signals["pre_projector"] if options.features == "pre_projector" else visual.tokens
    chosen, counts = _shares(visual, frames, options, features)
    importance = importance_of(visual, options)
    keep = torch.zeros(len(visual), dtype=torch.bool)
    for frame, count in zip(chosen, counts.tolist()):
        scores = token_scores(features[frame.rows], importance[frame.rows], options.alpha)
        keep[frame.rows[top_k(scores, count)]] = True
    return select(visual, keep)


def _shares(
    visual: VisualTokens, frames: list[Frame], options: KtvOptions, features: torch.Tensor
) -> tuple[list[Frame], torch.Tensor]:
    """The frames that tokens are kept of, and how many of each: int64, one a frame."""
    sizes = torch.tensor([len(frame.rows) for frame in frames])
    if not options.budget_given:
        chosen = _chosen(frames, options.keyframes, features, options)
        return [frames[index] for index in chosen], sizes[chosen].clamp_max(TOKENS_PER_KEYFRAME)
    count = rows_to_keep("ktv", options, visual)
    if count == int(sizes.sum()):
        return frames, sizes
    if options.variant == "official":
        chosen = _chosen(frames, options.keyframes, features, options)[:count]
        return [frames[index] for index in chosen], sizes[chosen].clamp_max(count // len(chosen))
    # Even if those with the fewest tokens are chosen, there are enough.
    moving = torch.tensor([frame.moving for frame in frames])
    single = int(sizes[~moving].sum())
    smallest = sizes[moving].sort().values.cumsum(0)
    needed = int(torch.searchsorted(smallest, count - single)) + 1
    few = max(1, min(max(options.keyframes, needed), count - int((~moving).sum())))
    chosen = _chosen(frames, few, features, options)
    return [frames[index] for index in chosen], proportional(sizes[chosen], count)


def _chosen(frames: list[Frame], count: int, features: torch.Tensor, options: KtvOptions) -> list[int]:
    """Numbers of the frames to keep tokens of, ascending: ``count`` keyframes, and all single pictures."""
    moving = [index for index, frame in enumerate(frames) if frame.moving]
    single = [index for index, frame in enumerate(frames) if not frame.moving]
    if len(moving) <= count:
        return list(range(len(frames)))
    # Into one place: small results that stay between large ones that go would leave the memory full of holes.
    descriptors = torch.empty((len(moving), features.shape[1]))
    for index, descriptor in zip(moving, descriptors):
        torch.mean(features[frames[index].rows].float(), dim=0, out=descriptor)
    found = keyframes(descriptors, count, options.variant)
    return sorted(single + [moving[index] for index in found.tolist()])


def keyframes(descriptors: torch.Tensor, count: int, variant: Literal["official", "fixed"] = "fixed") -> torch.Tensor:
    """The frames nearest to the centroids of ``count`` clusters of (F, D) descriptors: int64 (count,), ascending.

    ``count`` is at most F. Ties go to the earlier frame.
    """
    total = len(descriptors)
    candidates = torch.arange(total)
    if total > MOST_FRAMES >= count:
        candidates = torch.arange(MOST_FRAMES) * (total - 1) // (MOST_FRAMES - 1)
    points = Points(descriptors[candidates])
    distances = points.squared_distances(kmeans(points, count, restarts=RESTARTS, seed=SEED))
    found = distances.argmin(dim=1)
    if len(found.unique()) < count:
        if variant == "official":
            return evenly_spaced(total, count)
        found = _all_different(distances)
    return candidates[found].sort().values


def _all_different(distances: torch.Tensor) -> torch.Tensor:
    """The nearest point of each cluster that no cluster before it took: int64 (K,) for (K, N) distances."""
    taken: list[int] = []
    for row in distances:
        row[taken] = torch.inf
        taken.append(int(row.argmin()))
    return torch.tensor(taken)


def token_scores(features: torch.Tensor, importance: torch.Tensor, alpha: float) -> torch.Tensor:
    """``alpha * importance + (1 - alpha) * (1 - redundancy)`` of the tokens of a frame: float32 (P,).

    ``features``: (P, D) float; ``importance``: float32 (P,), at any scale.
    """
    unit = torch.nn.functional.normalize(features.float(), dim=1, eps=TINY)
    # The cosines with all tokens sum up to the product with the sum of all; the one with itself is taken off.
    redundancy = (unit @ unit.sum(dim=0) - unit.square().sum(dim=1)) / max(1, len(unit) - 1)
    return alpha * _stretched(importance) + (1 - alpha) * (1 - _stretched(redundancy))


def _stretched(values: torch.Tensor) -> torch.Tensor:
    """To 0..1; zeros where all are equal."""
    lowest, highest = torch.aminmax(values)
    return (values - lowest) / (highest - lowest) if bool(highest > lowest) else torch.zeros_like(values)
