"""Windows of a video: runs of steps in which some places stand still, and what becomes of those and of the others.

A window falls into *parts*. The places that stand still through all its steps are one part, in which a place with all
its rows is one candidate; in every step the other rows are a part, in which each row is a candidate. A part is int64
(W, n): the rows of n candidates through W steps, W being 1 for what moves.
"""

from __future__ import annotations

import torch

from tokcli.methods.layout import Block
from tokcli.methods.output import Groups, merge
from tokcli.ops.pooling import ROWS_AT_A_TIME
from tokcli.ops.selection import top_k
from tokcli.ops.similarity import cosine
from tokcli.types import TokenSet, VisualTokens


def parts_of(block: Block, start: int, stop: int, still: torch.Tensor) -> list[torch.Tensor]:
    """The parts of the window of positions start <= t < stop that have candidates, the one that stands still first.

    ``still``: bool (P,), only of places with a row in all of these steps; all false for a window of one step.
    """
    parts = [block.rows[start:stop, still]]
    parts += [rows[(rows >= 0) & ~still].unsqueeze(0) for rows in block.rows[start:stop]]
    return [part for part in parts if part.shape[1]]


def candidates_of(parts: list[torch.Tensor]) -> torch.Tensor:
    """How many candidates each part has: int64 (number of parts,)."""
    return torch.tensor([part.shape[1] for part in parts], dtype=torch.int64)


def points_of(visual: VisualTokens, part: torch.Tensor) -> torch.Tensor:
    """The candidates as vectors, means over their steps: float32 (n, D)."""
    points = visual.tokens.index_select(0, part[0]).float()
    for rows in part[1:]:
        points += visual.tokens.index_select(0, rows)
    return points / len(part)


def all_candidates(visual: VisualTokens, parts: list[torch.Tensor], count: int) -> TokenSet:
    """A token for every candidate, and for as many more rows as make up ``count``.

    Those rows leave the mean of a place that stands still: the ones that are least like the first row there. So a
    budget that exceeds the number of candidates is met too, up to all rows unchanged.
    """
    groups = Groups(visual)
    for part in parts:
        groups.add(part, torch.arange(part.shape[1]), part[0])
    labels, anchors = groups.labels, groups.anchors
    extra = count - len(anchors)
    if extra > 0:
        joined = labels >= 0
        joined[anchors] = False
        rows = torch.nonzero(joined).flatten()
        likeness = torch.cat(
            [cosine(visual.tokens[some], visual.tokens[anchors[labels[some]]]) for some in rows.split(ROWS_AT_A_TIME)]
        )
        leaving = rows[top_k(-likeness, extra)]
        labels[leaving] = len(anchors) + torch.arange(extra)
        anchors = torch.cat([anchors, leaving])
    return merge(visual, labels, anchors)
