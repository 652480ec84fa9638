"""Clustering by leaders: rows come one after another, and join a row that was kept before or are kept themselves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from tokcli.ops.nearest import NearestSearch
from tokcli.ops.similarity import TINY

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


def unit_rows(rows: torch.Tensor) -> Floats:
    """(n, D) rows of any float dtype at length 1, float32; zeros stay zeros."""
    unit: Floats = F.normalize(rows.float(), dim=1, eps=TINY).numpy()
    return unit


def leaders(alike: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Who leads when rows come in order and each one that is like no leader before it becomes one.

    ``alike``: bool (n, n), symmetric; the diagonal is not looked at. Returns bool (n,), the first one always true.
    In rounds: whoever has no undecided row before it that it is like is decided, which takes a few rounds and not n.
    """
    before = np.tril(alike, -1)
    leading = np.zeros(len(alike), dtype=np.bool_)
    undecided = np.ones(len(alike), dtype=np.bool_)
    while undecided.any():
        first = undecided & ~(before & undecided).any(axis=1)
        leading |= first
        undecided &= ~first & ~before[:, first].any(axis=1)
    return leading


class Anchors:
    """The rows that were kept so far, as unit vectors to compare new rows with.

    A new row joins the anchor with the largest cosine if that is above ``threshold``; else it is an anchor itself.
    With ``moving`` an anchor is compared by the mean of the unit vectors that joined it, instead of its own.
    """

    def __init__(self, search: NearestSearch, threshold: float, *, moving: bool = False) -> None:
        self.threshold = threshold
        self.rows = np.zeros(0, dtype=np.int64)
        """int64 (m,): the row that each anchor is."""
        self.closeness = np.zeros(0, dtype=np.float32)
        """float32 (m,): its largest cosine with the anchors that were there when it came; -inf where none was."""
        self._search = search
        self._vectors = np.zeros((0, 0), dtype=np.float32)
        self._sums = np.zeros((0, 0), dtype=np.float32) if moving else None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def vectors(self) -> Floats:
        """float32 (m, D): what new rows are compared with."""
        return self._vectors[: len(self.rows)]

    def nearest(self, unit: Floats) -> tuple[Floats, Indices]:
        """The largest cosine of each of (n, D) unit rows with an anchor, and the number of that anchor."""
        if not len(self.rows):
            return np.full(len(unit), -np.inf, dtype=np.float32), np.zeros(len(unit), dtype=np.int64)
        # Rounding can leave a cosine just outside its range; a threshold of 1 must still mean "join nothing".
        cosines, found = self._search.search(unit, self.vectors)
        return np.minimum(cosines, 1.0), found

    def take(self, unit: Floats, rows: Indices) -> tuple[Floats, Indices]:
        """Let (n, D) unit rows join or become anchors, in order.

        ``rows``: int64 (n,), what to call them. Returns the cosine of each with the anchor that it joined, float32
        (n,), 1 for the new anchors, and the number of the anchor, int64 (n,).
        """
        cosines, joined = self.nearest(unit)
        apart = np.flatnonzero(cosines <= self.threshold)
        if len(apart):
            some = torch.from_numpy(unit[apart])
            among: Floats = (some @ some.T).clamp_max(1.0).numpy()
            leading = leaders(among > self.threshold)
            new, first_new = apart[leading], len(self.rows)
            before = np.where(np.tri(len(new), k=-1, dtype=np.bool_), among[np.ix_(leading, leading)], -np.inf)
            self._append(unit[new], rows[new], np.maximum(cosines[new], before.max(axis=1)))
            # The new anchor that a row is most like, be it before or after it in the run.
            to_new = among[:, leading]
            cosines[apart], joined[apart] = to_new.max(axis=1), first_new + to_new.argmax(axis=1)
            cosines[new], joined[new] = 1.0, np.arange(first_new, len(self.rows))
        if self._sums is not None:
            torch.from_numpy(self._sums).index_add_(0, torch.from_numpy(joined), torch.from_numpy(unit))
            self._vectors[joined] = unit_rows(torch.from_numpy(self._sums[joined]))
            self._search.reset()
        return cosines, joined

    def _append(self, unit: Floats, rows: Indices, closeness: Floats) -> None:
        count = len(self.rows) + len(rows)
        if count > len(self._vectors):
            self._vectors = _grown(self.vectors, count, unit.shape[1])
            if self._sums is not None:
                self._sums = _grown(self._sums[: len(self.rows)], count, unit.shape[1])
        self._vectors[len(self.rows) : count] = unit
        if self._sums is not None:
            self._sums[len(self.rows) : count] = 0
        self.rows = np.concatenate([self.rows, rows])
        self.closeness = np.concatenate([self.closeness, closeness.astype(np.float32)])

    def drop(self, gone: npt.NDArray[np.bool_]) -> tuple[Floats, Indices]:
        """Take out the anchors where bool (m,) ``gone`` is true; returns their vectors and rows."""
        taken = self.vectors[gone], self.rows[gone]
        left = len(self.rows) - len(taken[1])
        self._vectors[:left] = self.vectors[~gone]
        if self._sums is not None:
            self._sums[:left] = self._sums[: len(self.rows)][~gone]
        self.rows, self.closeness = self.rows[~gone], self.closeness[~gone]
        self._search.reset()
        return taken

    def shrink(self, most: int, slack: int) -> None:
        """Lower the threshold until at most ``most`` anchors are left, with room for about ``slack`` more.

        The anchors that are most like another come again, in order, under the lower threshold.
        """
        while len(self.rows) > most:
            excess = min(len(self.rows) - most + slack, len(self.rows) - 1)
            limit = np.sort(self.closeness)[-excess]
            self.threshold = float(np.nextafter(limit, np.float32(-np.inf)))
            again, rows = self.drop(self.closeness >= limit)
            order = np.argsort(rows)
            self.take(again[order], rows[order])


def _grown(rows: Floats, count: int, width: int) -> Floats:
    """The (m, D) rows at the top of a matrix with room for ``count`` rows, and for as many again as there are."""
    matrix = np.empty((max(count, 2 * len(rows)), width), dtype=np.float32)
    if len(rows):
        matrix[: len(rows)] = rows
    return matrix
