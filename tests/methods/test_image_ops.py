"""Tensor primitives of the methods for stills against slow and obvious definitions."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tokcli.ops import contextual, diversity
from tokcli.ops.contextual import contextual_merge


def cosine_by_hand(left: torch.Tensor, right: torch.Tensor) -> float:
    lengths = math.dist(left, left * 0) * math.dist(right, right * 0)
    return float(left.double() @ right.double()) / lengths if lengths else 0.0


@pytest.mark.parametrize(("total", "count"), [(23, 5), (24, 24), (7, 4), (1, 1), (9, 1)])
@pytest.mark.parametrize("at_a_time", [1 << 22, 6])
def test_contextual_merging_by_hand(total: int, count: int, at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contextual, "ENTRIES_AT_A_TIME", at_a_time)
    features, keys = torch.randn(total, 6), torch.randn(total, 3)
    step = max(1, total // count)
    targets = [index * step for index in range(count)]
    merged = contextual_merge(features, keys, count)
    assert merged.targets.tolist() == targets
    members: list[list[int]] = [[] for _ in targets]
    for row in range(total):
        if row in targets:
            assert merged.groups[row] == targets.index(row)
            continue
        cosines = [cosine_by_hand(keys[row], keys[target]) for target in targets]
        assert cosines[int(merged.groups[row])] == pytest.approx(max(cosines), abs=1e-6)
        members[int(merged.groups[row])].append(row)
    for target, rows, value in zip(targets, members, merged.values):
        expected = features[target] + (features[rows].mean(dim=0) if rows else 0)
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=0)


def test_contextual_merging_of_equals_zeros_and_nothing() -> None:
    assert contextual_merge(torch.ones(6, 2), torch.ones(6, 2), 2).groups.tolist() == [0, 0, 0, 1, 0, 0]
    assert contextual_merge(torch.ones(6, 2), torch.zeros(6, 2), 2).groups.tolist() == [0, 0, 0, 1, 0, 0]
    assert contextual_merge(torch.ones(2, 2), torch.ones(2, 2), 5).values.tolist() == [[1, 1], [1, 1]]
    assert contextual_merge(torch.ones(3, 2), torch.ones(3, 2), 0).values.shape == (0, 2)
    assert contextual_merge(torch.ones(0, 2), torch.ones(0, 2), 3).groups.tolist() == []


def cosines_by_hand(rows: torch.Tensor) -> npt.NDArray[np.float64]:
    values = rows.double().numpy()
    lengths = np.sqrt((values**2).sum(axis=1))
    return np.array(values @ values.T / np.outer(lengths, lengths))


def max_min_by_hand(rows: torch.Tensor, count: int) -> list[int]:
    """With all pairs, and the nearest of what was chosen looked for anew each time."""
    distances = 1 - cosines_by_hand(rows)
    others = distances + np.diag(np.full(len(rows), np.inf))
    order = [int(others.min(axis=0).argmax())]
    while len(order) < count:
        nearest = distances[order].min(axis=0)
        nearest[order] = -np.inf
        order.append(int(nearest.argmax()))
    return order


@pytest.mark.parametrize("whole", [0, 4096])
@pytest.mark.parametrize(("total", "dim", "count"), [(1, 3, 1), (40, 8, 40), (300, 16, 90), (700, 5, 30)])
def test_max_min_order_by_hand(total: int, dim: int, count: int, whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "WHOLE_ROWS", whole)
    monkeypatch.setattr(diversity, "BLOCK", 64)
    monkeypatch.setattr(diversity, "COLUMNS_AT_A_TIME", 50)
    rows = torch.randn(total, dim, generator=torch.Generator().manual_seed(total))
    order = diversity.max_min_order(diversity.unit_rows(rows), count)
    assert order.tolist() == max_min_by_hand(rows, count)


def test_max_min_order_of_equals_takes_each_once() -> None:
    unit = diversity.unit_rows(torch.ones(20, 3))
    assert diversity.max_min_order(unit, 20).sort().values.tolist() == list(range(20))
    assert diversity.max_min_order(diversity.unit_rows(torch.zeros(4, 3)), 4).tolist() == [0, 1, 2, 3]
