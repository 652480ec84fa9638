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
    """

    def __init__(self, search: NearestSearch, threshold: float) -> None:
        self.threshold = threshold
        self.rows = np.zeros(0, dtype=np.int64)
        """int64 (m,): the row that each anchor is."""
        self.closeness = np.zeros(0, dtype=np.float32)
        """float32 (m,): its largest cosine with the anchors that were there when it came; -inf where none was."""
        self._search = search
        self._vectors = np.zeros((0, 0), dtype=np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def vectors(self) -> Floats:
        """float32 (m, D): what new rows are compared with. May be written to, with ``changed`` called after."""
        return self._vectors[: len(self.rows)]

    def changed(self) -> None:
        """Tell that vectors were written to."""
        self._search.reset()

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
        if not len(apart):
            return cosines, joined
        some = torch.from_numpy(unit[apart])
        among: Floats = (some @ some.T).clamp_max(1.0).numpy()
        leading = leaders(among > self.threshold)
        new = apart[leading]
        others = np.where(np.tri(len(new), k=-1, dtype=np.bool_), among[np.ix_(leading, leading)], -np.inf)
        closeness = np.maximum(cosines[new], others.max(axis=1))
        # The leader that a row is most like, be it before or after it in the run.
        nearest = among[:, leading].argmax(axis=1)
        cosines[apart], joined[apart] = among[:, leading].max(axis=1), len(self.rows) + nearest
        cosines[new], joined[new] = 1.0, len(self.rows) + np.arange(len(new))
        self._append(unit[new], rows[new], closeness)
        return cosines, joined

    def _append(self, unit: Floats, rows: Indices, closeness: Floats) -> None:
        count = len(self.rows) + len(rows)
        if count > len(self._vectors):
            grown = np.empty((max(count, 2 * len(self._vectors)), unit.shape[1]), dtype=np.float32)
            if len(self.rows):
                grown[: len(self.rows)] = self.vectors
            self._vectors = grown
        self._vectors[len(self.rows) : count] = unit
        self.rows = np.concatenate([self.rows, rows])
        self.closeness = np.concatenate([self.closeness, closeness.astype(np.float32)])

    def drop(self, gone: npt.NDArray[np.bool_]) -> tuple[Floats, Indices]:
        """Take out the anchors where bool (m,) ``gone`` is true; returns their vectors and rows."""
        taken = self.vectors[gone].copy(), self.rows[gone]
        kept = self.vectors[~gone]
        self._vectors[: len(kept)] = kept
        self.rows, self.closeness = self.rows[~gone], self.closeness[~gone]
        self._search.reset()
        return taken

    def shrink(self, most: int, slack: int) -> None:
        """Lower the threshold until at most ``most`` anchors are left, and up to ``slack`` less so as not to be full again.

        The anchors that are most like another come again, in order, under the lower threshold.
        """
        while len(self.rows) > most:
            excess = min(len(self.rows) - most + slack, len(self.rows) - 1)
            limit = np.sort(self.closeness)[-excess]
            self.threshold = float(np.nextafter(limit, np.float32(-np.inf)))
            again, rows = self.drop(self.closeness >= limit)
            order = np.argsort(rows)
            self.take(again[order], rows[order])
