"""Choosing tokens that differ, by cosine.

Rows are unit vectors (N, D) float32; a zero vector has cosine 0 with everything. Ties go to the lowest index. Up to
4,096 rows all cosines are computed at once, in half the time since they are symmetric; of more rows only those that
decide something, so that memory grows with N and not with its square.
"""

from __future__ import annotations

import torch

from tokcli.ops.rows import empty
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


class CosineRows:
    """Rows of the matrix of all cosines, each made when it is first asked for, with those that may come next."""

    def __init__(self, unit: torch.Tensor) -> None:
        self._unit = unit
        self._made = torch.zeros(len(unit), dtype=torch.bool)
        self._rows: dict[int, torch.Tensor] = {}

    def take(self, index: int, likely: torch.Tensor) -> torch.Tensor:
        """Cosines of a row with all: float32 (N,). Each row can be taken once.

        ``likely``: float32 (N,), larger for rows that are more likely to come next, infinite where nothing is known.
        """
        if index not in self._rows:
            self._made[index] = True
            hopes = likely.masked_fill(self._made, -torch.inf)
            others = torch.topk(hopes, min(ROWS_AT_A_TIME, len(hopes)) - 1).indices
            others = others[hopes[others].isfinite()]
            self._made[others] = True
            chosen = torch.cat([torch.tensor([index]), others])
            self._rows.update(zip(chosen.tolist(), self._unit[chosen] @ self._unit.T))
        return self._rows.pop(index)


def most_isolated(unit: torch.Tensor) -> int:
    """The row whose largest cosine with another is the smallest: the farthest from its nearest neighbour."""
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


def max_min_order(unit: torch.Tensor, count: int, *, first: int | None = None, repeat: bool = False) -> torch.Tensor:
    """``count`` rows, each the farthest from those before it: int64 (count,), in that order; count is at most N.

    The distance is 1 - cosine. ``first`` is by default the :func:`most_isolated` row. With ``repeat`` a row that was
    chosen may be chosen again, as among equal ones in DivPrune's code (arXiv:2503.02175).
    """
    whole = all_cosines(unit) if len(unit) <= WHOLE_ROWS else None
    rows, taken = CosineRows(unit), set()
    distances = torch.full((len(unit),), torch.inf)
    values = distances.numpy()
    order = torch.zeros(count, dtype=torch.int64)
    for index in range(count):
        if index:
            pick = int(values.argmax())
        elif first is not None:
            pick = first
        else:
            pick = most_isolated(unit) if whole is None else _most_isolated_of(whole)
        order[index] = pick
        if pick not in taken:
            taken.add(pick)
            cosines = rows.take(pick, distances) if whole is None else whole[pick]
            torch.minimum(distances, 1.0 - cosines, out=distances)
        if not repeat:
            distances[pick] = -torch.inf
    return order


def _most_isolated_of(cosines: torch.Tensor) -> int:
    diagonal = cosines.diagonal().clone()
    cosines.diagonal().fill_(-torch.inf)
    nearest = cosines.amax(dim=1)
    cosines.diagonal().copy_(diagonal)
    return int(nearest.numpy().argmin())
