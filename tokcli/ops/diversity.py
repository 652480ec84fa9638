"""Choosing tokens that differ, by cosine.

Rows are unit vectors (N, D) float32; a zero vector has cosine 0 with everything. Ties go to the lowest index. Up to
4,096 rows all cosines are computed at once, in half the time since they are symmetric; of more rows only those that
decide something, so that memory grows with N and not with its square.
"""

from __future__ import annotations

import torch

from tokcli.ops.rows import empty, gathered
from tokcli.ops.similarity import norms

WHOLE_ROWS = 4096
BLOCK = 288
"""Rows of a block of the whole matrix: about what a processor keeps near."""
ROWS_AT_A_TIME = 32
COLUMNS_AT_A_TIME = 256


def unit_rows(rows: torch.Tensor) -> torch.Tensor:
    """(N, D) float tokens at length 1, float32; zeros stay zeros."""
    values = rows.float()
    return values / norms(values).unsqueeze(1)


def unit_of(tokens: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """:func:`unit_rows` of ``tokens[rows]``, with one copy less."""
    values = gathered(tokens, rows).float()
    return values.div_(norms(values).unsqueeze(1))


def all_cosines(unit: torch.Tensor) -> torch.Tensor:
    """Products of all pairs of rows: float32 (N, N), exactly symmetric. For a few thousand rows."""
    total = len(unit)
    cosines = empty((total, total), torch.float32)
    for start in range(0, total, BLOCK):
        stop = min(total, start + BLOCK)
        block = unit[start:stop] @ unit[start:].T
        cosines[start:stop, start:] = block
        cosines[stop:, start:stop] = block[:, stop - start :].T
    return cosines


class Cosines:
    """Rows of the matrix of all cosines, as a choice asks for one after the other."""

    def __init__(self, unit: torch.Tensor) -> None:
        self._unit = unit
        self._whole = all_cosines(unit) if len(unit) <= WHOLE_ROWS else None
        self._made = torch.zeros(len(unit), dtype=torch.bool)
        self._rows: dict[int, torch.Tensor] = {}

    def row(self, index: int, likely: torch.Tensor) -> torch.Tensor:
        """Cosines of a row with all: float32 (N,). Each row can be asked for once.

        ``likely``: float32 (N,), larger for rows that are more likely to come next, infinite where nothing is known:
        of many rows, some are made together.
        """
        if self._whole is not None:
            return self._whole[index]
        if index not in self._rows:
            self._made[index] = True
            hopes = likely.masked_fill(self._made, -torch.inf)
            others = torch.topk(hopes, min(ROWS_AT_A_TIME, len(hopes)) - 1).indices
            others = others[hopes[others].isfinite()]
            self._made[others] = True
            chosen = torch.cat([torch.tensor([index]), others])
            self._rows.update(zip(chosen.tolist(), self._unit[chosen] @ self._unit.T))
        return self._rows.pop(index)

    def most_isolated(self) -> int:
        """The row whose largest cosine with another is the smallest: the farthest from its nearest neighbour."""
        if self._whole is None:
            return most_isolated(self._unit)
        diagonal = self._whole.diagonal().clone()
        self._whole.diagonal().fill_(-torch.inf)
        nearest = self._whole.amax(dim=1)
        self._whole.diagonal().copy_(diagonal)
        return int(nearest.numpy().argmin())


def most_isolated(unit: torch.Tensor) -> int:
    """As :meth:`Cosines.most_isolated`, in bounded memory."""
    # Rows that are already too near to another drop out before they meet all others.
    left = torch.arange(len(unit))
    nearest = torch.full((len(unit),), -torch.inf)
    bound = torch.inf
    for start in range(0, len(unit), COLUMNS_AT_A_TIME):
        columns = unit[start : start + COLUMNS_AT_A_TIME]
        torch.maximum(nearest, _largest(unit, left, columns, start), out=nearest)
        if start == 0:
            some = left[torch.topk(-nearest, min(ROWS_AT_A_TIME, len(left))).indices]
            # A product may round otherwise among other rows; what is a hair above the bound meets the others too.
            bound = float(_largest(unit, some, unit, 0).min()) + 1e-5
        stays = nearest <= bound
        left, nearest = left[stays], nearest[stays]
    return int(left[nearest.numpy().argmin()])


def _largest(unit: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, start: int) -> torch.Tensor:
    """The largest cosine of each of ``rows`` with one of ``columns``, which begin at row ``start``, but for itself."""
    cosines = unit[rows] @ columns.T
    inside = torch.nonzero((rows >= start) & (rows < start + len(columns))).flatten()
    cosines[inside, rows[inside] - start] = -torch.inf
    return cosines.amax(dim=1)


def weighted_max_min_order(unit: torch.Tensor, weights: torch.Tensor, count: int) -> torch.Tensor:
    """``count`` rows, each with the largest weight times distance from those before it: int64 (count,), in that order.

    ``weights``: float (N,), none below 0; the heaviest row is the first. The distance is 1 - cosine; count is at
    most N. Where nothing has weight any more, the lowest index comes next.
    """
    cosines = Cosines(unit)
    nearest = torch.full((len(unit),), -torch.inf)
    chosen = torch.zeros(len(unit), dtype=torch.bool)
    scores = weights.clone()
    order = torch.zeros(count, dtype=torch.int64)
    for index in range(count):
        pick = int(scores.numpy().argmax())
        order[index] = pick
        chosen[pick] = True
        torch.maximum(nearest, cosines.row(pick, scores), out=nearest)
        scores = (weights * (1.0 - nearest).clamp_min_(0.0)).masked_fill_(chosen, -torch.inf)
    return order


def max_min_order(unit: torch.Tensor, count: int, *, first: int | None = None, repeat: bool = False) -> torch.Tensor:
    """``count`` rows, each the farthest from those before it: int64 (count,), in that order; count is at most N.

    The distance is 1 - cosine. ``first`` is by default the :func:`most_isolated` row. With ``repeat`` a row that was
    chosen may be chosen again, as among equal ones in DivPrune's code (arXiv:2503.02175).
    """
    cosines, taken = Cosines(unit), set()
    distances = torch.full((len(unit),), torch.inf)
    values = distances.numpy()
    order = torch.zeros(count, dtype=torch.int64)
    pick = cosines.most_isolated() if first is None else first
    for index in range(count):
        order[index] = pick
        if pick not in taken:
            taken.add(pick)
            torch.minimum(distances, 1.0 - cosines.row(pick, distances), out=distances)
        if not repeat:
            distances[pick] = -torch.inf
        pick = int(values.argmax())
    return order


def min_sum_order(unit: torch.Tensor, count: int, first: int) -> torch.Tensor:
    """``count`` rows from ``first`` on, each with the least sum of cosines with those before it: int64 (count,)."""
    cosines = Cosines(unit)
    sums = torch.zeros(len(unit))
    values = sums.numpy()
    order = torch.zeros(count, dtype=torch.int64)
    pick = first
    for index in range(count):
        order[index] = pick
        sums += cosines.row(pick, -sums)
        sums[pick] = torch.inf
        pick = int(values.argmin())
    return order
