"""temporal_merge: a memory of kept tokens over the whole clip, into which later tokens are merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.output import merge
from tokcli.ops.anchors import Anchors, Floats, Indices, unit_rows
from tokcli.ops.nearest import NearestSearch
from tokcli.types import TokenSet, VisualTokens

DEFAULT_THRESHOLD = 0.9
ROWS_AT_A_TIME = 1024
"""Rows of one step that are compared with each other at once: it bounds the memory for large images."""
LEAVING = 4
"""When the memory is full, a quarter of it leaves: few and large changes are cheaper than many small ones."""
SLACK = 4
"""With a budget, a full memory makes room for a quarter of it; what is left in the end is filled up."""


class TemporalMergeOptions(SizeBudget):
    default_budget: ClassVar[Mapping[str, float]] = {"threshold": DEFAULT_THRESHOLD}

    threshold: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="Merge a token into a kept one if their cosine is above this; 0.9 where no budget is given.",
    )
    reference: Literal["anchor", "mean"] = Field(
        default="anchor",
        description="What a group is compared by: the token that was kept first, or the mean of all that joined it.",
    )
    index: Literal["auto", "flat", "ivf"] = Field(
        default="auto",
        description="FAISS index: 'flat' compares with all kept tokens, 'ivf' with those in the nearest lists only, "
        "'auto' is ivf beyond 32768 kept tokens.",
    )
    memory: int | None = Field(
        default=None,
        ge=1,
        description="With a threshold: most kept tokens to compare with. Those that leave stay in the result.",
    )
    forget: Literal["oldest", "lightest"] = Field(
        default="oldest", description="Who leaves a full memory: the tokens kept first, or those that fewest joined."
    )

    @model_validator(mode="after")
    def _fitting(self) -> TemporalMergeOptions:
        if self.threshold is None and self.memory is not None:
            raise ValueError("memory needs a threshold: with keep or max_tokens the budget bounds the memory")
        if self.reference == "mean" and self.threshold is None:
            raise ValueError("reference='mean' needs a threshold")
        if self.reference == "mean" and self.index == "ivf":
            raise ValueError("reference='mean' needs index='flat': in inverted lists vectors can't change")
        return self


@method("temporal_merge", options=TemporalMergeOptions, kind="merge", count="exact")
def temporal_merge(visual: VisualTokens, options: TemporalMergeOptions) -> TokenSet:
    """Merge every token into the most similar one kept before, wherever and whenever that was.

    The toolkit's own method. Tokens come in order and are compared by cosine with all that were kept so far, at any
    place of any step, with FAISS. One that is above the threshold joins the nearest; the others are kept and compared
    with from then on. So a scene that comes back, a camera that pans and what repeats within a frame are merged, which
    methods that compare with the step before cannot do, and a slow drift is kept again whenever it has added up to the
    threshold. A kept token becomes the mean of all that joined it, at the place where it was first seen: what moves is
    merged over its way, and where it went is lost.

    With ``keep`` or ``max_tokens`` the number is met exactly: the threshold falls whenever more are kept than allowed,
    and in the end the tokens that fit their group least stand alone until the budget is used up. So the budget goes to
    what is new in the whole item, unlike dtd's, which is spread evenly over time.

    New tokens are compared with the token that was kept first; with ``reference=mean`` with the mean of its group,
    which follows a drift and then holds tokens that no longer resemble the first. FAISS compares with all kept tokens,
    or beyond 32768 with those in the nearest of its inverted lists, which may keep a token more than needed; a GPU is
    used where FAISS is built for one. ``memory`` bounds how many tokens are compared with.

    Works on whole items, because a mean is known only when the item has ended. What it compares with never exceeds the
    budget, or ``memory``, and with a threshold what is kept of a beginning does not depend on what follows. Thumbnails
    and crops share one memory with the frames. Earlier merging is not weighted in.
    """
    candidates = torch.nonzero(~visual.structural).flatten()
    groups = _Groups(visual, options)
    if options.threshold is not None:
        groups.walk(candidates)
    else:
        count = rows_to_keep("temporal_merge", options, visual) if len(candidates) else 0
        groups.walk_within(candidates, count)
    return groups.merged()


class _Groups:
    """Which kept row each row goes into, while the steps of an item come one after another."""

    def __init__(self, visual: VisualTokens, options: TemporalMergeOptions) -> None:
        self._visual, self._options = visual, options
        kind = "flat" if options.reference == "mean" else options.index
        threshold = np.inf if options.threshold is None else options.threshold
        self._anchors = Anchors(NearestSearch(kind), threshold, moving=options.reference == "mean")
        self._joined = np.full(len(visual), -1, dtype=np.int64)
        """The row that each row was merged into, its own number for the anchors."""
        self._cosines = np.full(len(visual), np.inf, dtype=np.float32)
        """With that row; infinite for the anchors themselves."""

    def _steps(self, rows: torch.Tensor) -> Iterator[tuple[Floats, Indices]]:
        """The rows by temporal step, or part of a large one, as unit vectors, with their numbers."""
        _, sizes = torch.unique_consecutive(self._visual.coords[rows, :2], dim=0, return_counts=True)
        for step in rows.split(sizes.tolist()):
            yield from self._runs(step)

    def _runs(self, rows: torch.Tensor) -> Iterator[tuple[Floats, Indices]]:
        for run in rows.split(ROWS_AT_A_TIME):
            yield unit_rows(self._visual.tokens[run]), run.numpy()

    def _take(self, unit: Floats, rows: Indices) -> None:
        cosines, joined = self._anchors.take(unit, rows)
        self._joined[rows], self._cosines[rows] = self._anchors.rows[joined], cosines

    def walk(self, candidates: torch.Tensor) -> None:
        """Merge what is above the threshold."""
        for unit, rows in self._steps(candidates):
            self._take(unit, rows)
            if self._options.memory is not None and len(self._anchors) > self._options.memory:
                self._forget(self._options.memory)

    def _forget(self, memory: int) -> None:
        leaving = len(self._anchors) - memory + memory // LEAVING
        gone = np.zeros(len(self._anchors), dtype=np.bool_)
        if self._options.forget == "oldest":
            gone[:leaving] = True
        else:
            members = np.bincount(self._joined[self._joined >= 0], minlength=len(self._visual))
            gone[np.argsort(members[self._anchors.rows], kind="stable")[:leaving]] = True
        self._anchors.drop(gone)

    def walk_within(self, candidates: torch.Tensor, count: int) -> None:
        """Merge down to ``count`` groups, under the highest threshold that makes them fit."""
        anchors = self._anchors
        for unit, rows in self._steps(candidates):
            self._take(unit, rows)
            anchors.shrink(count, count // SLACK)
        rows = candidates.numpy()
        orphans = torch.from_numpy(rows[~np.isin(self._joined[rows], anchors.rows)])
        for unit, some in self._runs(orphans):
            cosines, joined = anchors.nearest(unit)
            self._joined[some], self._cosines[some] = anchors.rows[joined], cosines
        self._joined[anchors.rows] = anchors.rows
        self._fill(rows, count)

    def _fill(self, rows: Indices, count: int) -> None:
        """Use up the budget: those least like their anchor become anchors, unless they are like one another."""
        while len(self._anchors) < count:
            self._cosines[self._anchors.rows] = np.inf
            least = rows[np.argsort(self._cosines[rows], kind="stable")[: count - len(self._anchors)]]
            self._anchors.threshold = float(self._cosines[least].max())
            for unit, some in self._runs(torch.from_numpy(np.sort(least))):
                self._take(unit, some)

    def merged(self) -> TokenSet:
        anchors = np.flatnonzero(self._joined == np.arange(len(self._joined)))
        groups = np.full(len(self._joined), -1, dtype=np.int64)
        groups[anchors] = np.arange(len(anchors))
        labels = np.where(self._joined >= 0, groups[self._joined], -1)
        return merge(self._visual, torch.from_numpy(labels), torch.from_numpy(anchors))
