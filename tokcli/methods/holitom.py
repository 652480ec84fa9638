"""HoliTom, outer part: windows that save the most, merged where they stand still and pruned where they move."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, grid_tokens, rows_to_keep
from tokcli.methods.importance import ImportanceOptions, importance_of, importance_signals
from tokcli.methods.layout import Block, blocks
from tokcli.methods.options import VariantOptions
from tokcli.methods.output import Groups
from tokcli.methods.windows import all_candidates, candidates_of, parts_of, points_of
from tokcli.ops.allocation import proportional
from tokcli.ops.density import DensityPeaks
from tokcli.ops.pooling import group_means
from tokcli.ops.selection import top_k_mask
from tokcli.ops.similarity import cosine_to_previous
from tokcli.types import TokenSet, VisualTokens

DEFAULT_KEEP = 0.1


class HolitomOptions(VariantOptions, ImportanceOptions, SizeBudget):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": DEFAULT_KEEP}

    keep: float | None = Field(
        default=None, gt=0, le=1, description="Share of the item's tokens to keep; 0.1 where no budget is given."
    )
    tau: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="A place stands still between two steps if their cosine is above this; by default 0.65 for keep "
        "up to 0.1, else 0.8.",
    )
    beta: float | None = Field(
        default=0.6,
        ge=0,
        le=1,
        description="Weight of a centre against the mean of the tokens that join it; 'none' for the mean of all.",
    )
    neighbours: int = Field(default=7, ge=1, description="Nearest points, itself among them, that make up a density.")
    max_window: int = Field(default=1024, ge=1, description="Longest window in steps.")

    @property
    def stillness(self) -> float:
        """``tau`` or its default, which the authors' scripts lower for the smallest budget."""
        if self.tau is not None:
            return self.tau
        return 0.65 if self.keep is not None and self.keep <= DEFAULT_KEEP else 0.8


@method(
    "holitom",
    options=HolitomOptions,
    kind="merge",
    count="exact",
    paper="arXiv:2505.21334",
    needs_from=importance_signals,
    golden=("holitom_segmentation", "holitom_outer", "holitom_dpcknn"),
    code="cokeshao/HoliTom @ e9b2972f",
    licence="Apache-2.0",
    variants={
        "official": "shares are rounded window by window (up for what moves), what stands still can vanish, and a "
        "window that is to become one token takes the first place as its centre",
        "fixed": "the budget is met to the token, every window and step keeps one while the budget has as many, and "
        "densities come from two points at least",
    },
)
def holitom(visual: VisualTokens, options: HolitomOptions) -> TokenSet:
    """Cut a video where that saves most, average what stands still, keep what matters of the rest.

    A place stands still between two steps if the cosine of its tokens is above ``tau``. Of all ways to cut a view into
    windows, the one is taken in which the most tokens can be saved by averaging every place that stands still through
    a whole window over the window's steps (dynamic programming). The remaining budget is divided in proportion: the
    averages of a window are clustered by density (DPC-KNN), each centre being blended with those that are nearest to
    it; of the places that move, each step keeps those that receive the most attention. What was averaged is placed at
    the first step of its window, at the place of the centre, and stands for all rows that went into it.

    This is the paper's outer merging, before the language model; the inner one needs the question. Needs the importance
    of every token, by default the attention that it receives. With more budget than windows leave tokens, the rows
    that are least like the first of their window stay by themselves, up to all tokens unchanged.

    The official share knows no ``max_tokens``: with that budget counts are those of 'fixed'. Density depends on the
    scale of tokens, so it is compared by logarithms, which do not vanish for large norms.
    """
    parts: list[torch.Tensor] = []
    for block in blocks(visual):
        still = still_between(block, visual, options.stillness)
        for start, stop in windows(still, options.max_window)[0]:
            through = still[start : stop - 1].all(axis=0) & (stop - start > 1)
            parts += parts_of(block, start, stop, torch.from_numpy(through))
    candidates = candidates_of(parts)
    if options.variant == "official" and options.keep is not None:
        counts = _official_counts(parts, visual, options.keep)
    else:
        count = rows_to_keep("holitom", options, visual)
        if count >= int(candidates.sum()):
            return all_candidates(visual, parts, count)
        counts = proportional(candidates, count).tolist()
    return _reduce(visual, options, parts, counts)


def still_between(block: Block, visual: VisualTokens, tau: float) -> npt.NDArray[np.bool_]:
    """Which places stand still from each step to the next: bool (T - 1, P)."""
    present = block.present
    similarity = cosine_to_previous(block.gather(visual.tokens))[1:]
    still: npt.NDArray[np.bool_] = ((similarity > tau) & present[1:] & present[:-1]).numpy()
    return still


def windows(still: npt.NDArray[np.bool_], max_window: int) -> tuple[list[tuple[int, int]], int]:
    """Cut T steps into windows start <= t < stop so that the most tokens are saved; returns them and that number.

    ``still``: bool (T - 1, P). A window of W steps saves W - 1 tokens at every place that stands still through it.
    Of equal cuts the one with a single step at the end wins, then the one with the shortest last window, and so on.
    """
    steps = len(still) + 1
    saved = np.zeros(steps + 1, dtype=np.int64)
    length = np.ones(steps + 1, dtype=np.int64)
    # How long each place has stood still: how many places did so for m steps and more follows for all m at once,
    # where comparing all pairs of steps would take T * T * P numbers.
    stood = np.zeros(still.shape[1], dtype=np.int64)
    for last in range(1, steps):
        stood = np.where(still[last - 1], stood + 1, 0)
        saved[last + 1] = saved[last]
        longest = min(last + 1, max_window)
        at_least = np.bincount(np.minimum(stood, longest - 1), minlength=longest)[::-1].cumsum()[::-1]
        shorter = np.arange(1, longest)
        gains = saved[last - shorter] + shorter * at_least[1:]
        if len(gains) and gains.max() > saved[last]:
            saved[last + 1] = gains.max()
            length[last + 1] = gains.argmax() + 2
    found = []
    stop = steps
    while stop > 0:
        found.append((stop - int(length[stop]), stop))
        stop -= int(length[stop])
    return found[::-1], int(saved[steps])


def _official_counts(parts: list[torch.Tensor], visual: VisualTokens, keep: float) -> list[int]:
    sizes = candidates_of(parts)
    total = sum(part.numel() for part in parts)
    grid = grid_tokens(visual.views)
    share = keep if total == grid else keep * grid / max(1, total)
    # The order of this expression is the authors': their rounding is part of what it reproduces.
    share = min(share / (int(sizes.sum()) / total), 1) if total else 1
    return [
        round(size * share) if len(part) > 1 else math.ceil(size * share) for part, size in zip(parts, sizes.tolist())
    ]


def _reduce(visual: VisualTokens, options: HolitomOptions, parts: list[torch.Tensor], counts: list[int]) -> TokenSet:
    scores = importance_of(visual, options)
    groups = Groups(visual)
    for part, count in zip(parts, counts):
        if count == 0:
            continue
        if len(part) == 1:
            chosen = torch.nonzero(top_k_mask(scores[part[0]], count)).flatten()
            groups.add_alone(part[0, chosen])
        else:
            points = points_of(visual, part)
            least = 1 if options.variant == "official" else 2
            peaks = DensityPeaks(points, max(least, min(options.neighbours, count)))
            chosen = peaks.centres(count).sort().values
            nearest = peaks.nearest(chosen)
            groups.add(part, nearest, part[0, chosen], blend(points, chosen, nearest, options.beta))
    return groups.merged()


def blend(points: torch.Tensor, centres: torch.Tensor, nearest: torch.Tensor, beta: float | None) -> torch.Tensor:
    """What each centre becomes: float32 (c, D), ``beta * centre + (1 - beta) * mean`` of those that join it.

    ``points``: float32 (n, D); ``centres``: int64 (c,); ``nearest``: int64 (n,), positions in ``centres``. A centre
    that nothing joins stays as it is. Without ``beta``: the mean of the centre and those that join it.
    """
    if beta is None:
        return group_means(points, nearest, len(centres))[0]
    joining = nearest.clone()
    joining[centres] = -1
    means, sizes = group_means(points, joining, len(centres))
    own = points[centres]
    return torch.where(sizes.unsqueeze(1) > 0, beta * own + (1 - beta) * means, own)
