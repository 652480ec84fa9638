"""PruneVid, first stage: scenes by clustering the frames, then clusters of what stands still and of what moves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.layout import blocks
from tokcli.methods.output import Groups
from tokcli.methods.windows import all_candidates, candidates_of, parts_of, points_of
from tokcli.ops.allocation import proportional
from tokcli.ops.density import DensityPeaks
from tokcli.ops.pooling import frame_means
from tokcli.ops.similarity import mean_pairwise_cosine
from tokcli.types import TokenSet, VisualTokens

FEW = 14
"""Parts of no more tokens than this are not clustered, unless a budget asks for it."""


class PrunevidOptions(SizeBudget):
    tau: float = Field(
        default=0.8,
        ge=-1,
        le=1,
        description="A place stands still in a window if the mean cosine of its tokens, pair by pair, is above this.",
    )
    window_share: float = Field(
        default=0.25, gt=0, le=1, description="Clusters of steps that windows are made of, as a share of the steps."
    )
    cluster_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Tokens left of a part of more than 14, as a share; of no effect where a budget is given.",
    )
    neighbours: int = Field(default=7, ge=1, description="Nearest points, itself among them, that make up a density.")


@method(
    "prunevid",
    options=PrunevidOptions,
    kind="merge",
    count="exact",
    paper="arXiv:2412.16117",
    golden=("prunevid", "prunevid_refine"),
    code="Visual-AI/PruneVid @ b12600c6",
    licence="CC BY-NC-SA 4.0; nothing of it is in this package",
)
def prunevid(visual: VisualTokens, options: PrunevidOptions) -> TokenSet:
    """Cut a video into scenes, average what stands still in each, then average clusters of tokens.

    The steps of a view are clustered by the density of their mean tokens (DPC-KNN), and runs of one cluster become
    windows, islands joining the longer neighbour. A place stands still in a window if its tokens there are alike, pair
    by pair; it becomes its average over the window, placed at the first step. The averages of a window, and what moves
    in each of its steps, are then clustered by density to half their number: a cluster becomes the mean of its tokens
    and is placed at its centre.

    Without a budget the number of tokens follows the content. With one, it is divided among windows and steps in
    proportion, in place of the half. With more budget than windows leave tokens, the rows that are least like the
    first of their window stay by themselves, up to all tokens unchanged.

    This is the paper's first stage; the second, inside the language model, needs the question. The authors' code stops
    with an error for less than 7 steps; here short videos make do with fewer neighbours and one window at least.
    """
    parts: list[torch.Tensor] = []
    for block in blocks(visual):
        frames, present = block.gather(visual.tokens), block.present
        labels = refine_labels(_scene_labels(frame_means(frames, present), options))
        edges = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
        for start, stop in pairwise(edges):
            still = torch.zeros(present.shape[1], dtype=torch.bool)
            if stop - start > 1:
                still = (mean_pairwise_cosine(frames[start:stop]) > options.tau) & present[start:stop].all(dim=0)
            parts += parts_of(block, start, stop, still)
    candidates = candidates_of(parts)
    if not options.budget_given:
        counts = [size if size <= FEW else max(1, int(size * options.cluster_share)) for size in candidates.tolist()]
    else:
        count = rows_to_keep("prunevid", options, visual)
        if count >= int(candidates.sum()):
            return all_candidates(visual, parts, count)
        counts = proportional(candidates, count).tolist()
    groups = Groups(visual)
    for part, count in zip(parts, counts):
        if count == part.shape[1]:
            groups.add(part, torch.arange(count), part[0])
        elif count > 0:
            peaks = DensityPeaks(points_of(visual, part), options.neighbours)
            centres = peaks.centres(count)
            groups.add(part, peaks.nearest(centres), part[0, centres])
    return groups.merged()


def _scene_labels(means: torch.Tensor, options: PrunevidOptions) -> npt.NDArray[np.int64]:
    """The cluster of each step, int64 (T,); clusters are numbered from the highest score of their centres."""
    peaks = DensityPeaks(means, options.neighbours)
    centres = peaks.centres(max(1, int(len(means) * options.window_share)))
    labels: npt.NDArray[np.int64] = peaks.nearest(centres).numpy()
    return labels


def refine_labels(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Make clusters of steps into runs: int64 (T,) to int64 (T,).

    Of each label only its longest runs stay, and none if they are single steps. A stretch between takes the label of
    the longer run beside it, the left one if both are equal, its length counted with what it took before; label 0 if
    nothing stays.
    """
    edges = np.flatnonzero(np.diff(labels, prepend=labels[0] - 1, append=labels[-1] - 1))
    lengths = np.diff(edges)
    names = labels[edges[:-1]]
    longest = np.zeros(int(labels.max()) + 1, dtype=np.int64)
    np.maximum.at(longest, names, lengths)
    stays = (lengths == longest[names]) & (lengths > 1)
    if not stays.any():
        return np.zeros_like(labels)
    runs: list[list[int]] = []
    pending = 0
    for name, length, stay in zip(names.tolist(), lengths.tolist(), stays.tolist()):
        if not stay:
            pending += length
            continue
        if runs and runs[-1][1] >= length:
            runs[-1][1] += pending
            pending = 0
        if runs and runs[-1][0] == name:
            runs[-1][1] += pending + length
        else:
            runs.append([name, pending + length])
        pending = 0
    runs[-1][1] += pending
    refined: npt.NDArray[np.int64] = np.repeat(*np.array(runs, dtype=np.int64).T)
    return refined
