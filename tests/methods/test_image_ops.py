"""Tensor primitives of the methods for stills against slow and obvious definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokcli.methods import textmonkey
from tokcli.ops import contextual, diversity
from tokcli.ops.allocation import by_weight
from tokcli.ops.components import components
from tokcli.ops.contextual import contextual_merge
from tokcli.ops.selection import evenly_spread_down


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


@pytest.mark.parametrize("whole", [0, 4096])
def test_min_sum_order_by_hand(whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diversity, "WHOLE_ROWS", whole)
    rows = torch.randn(120, 9, generator=torch.Generator().manual_seed(3))
    cosines, order = cosines_by_hand(rows), [17]
    while len(order) < 60:
        sums = cosines[order].sum(axis=0)
        sums[order] = np.inf
        order.append(int(sums.argmin()))
    assert diversity.min_sum_order(diversity.unit_rows(rows), 60, first=17).tolist() == order


@pytest.mark.parametrize(("total", "count"), [(1, 1), (5, 2), (700, 70), (700, 699), (577, 1)])
def test_least_redundant_by_hand(total: int, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textmonkey, "ROWS_AT_A_TIME", 48)
    monkeypatch.setattr(textmonkey, "COLUMNS_AT_A_TIME", 50)
    rows = torch.randn(total, 12, generator=torch.Generator().manual_seed(total))
    later = np.where(np.triu(np.ones((total, total), dtype=bool), 1), cosines_by_hand(rows), -np.inf).max(axis=1)
    expected = np.argsort(-later, kind="stable")[total - count :]
    assert textmonkey.least_redundant(diversity.unit_rows(rows), count).tolist() == expected.tolist()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 60), st.randoms())
def test_by_weight_gives_all_there_is_room_for(sizes: list[int], total: int, random: Any) -> None:
    weights = [random.choice([0.0, 0.5, 1.0, 7.25]) for _ in sizes]
    counts = by_weight(torch.tensor(weights), total, torch.tensor(sizes)).tolist()
    assert sum(counts) == min(total, sum(sizes))
    assert all(0 <= count <= size for count, size in zip(counts, sizes))
    alike = [1.0] * len(weights) if not any(weights) else weights
    for count, size, weight in zip(counts, sizes, alike):
        assert count >= min(size, int(weight / sum(alike) * total)), "the whole quota, as far as there is room"


def test_by_weight_by_hand() -> None:
    assert by_weight(torch.tensor([3.0, 1.0, 1.0]), 10, torch.tensor([9, 9, 9])).tolist() == [6, 2, 2]
    assert by_weight(torch.tensor([3.0, 2.0, 1.0]), 10, torch.tensor([2, 9, 9])).tolist() == [2, 5, 3]
    assert by_weight(torch.tensor([0.0, 0.0]), 3, torch.tensor([9, 9])).tolist() == [2, 1]


@given(st.integers(1, 5), st.integers(1, 5), st.randoms())
def test_components_are_those_of_a_flood(height: int, width: int, random: Any) -> None:
    right, below = ([random.random() < 0.5 for _ in range(height * width)] for _ in range(2))
    labels = components((height, width), torch.tensor(right), torch.tensor(below)).tolist()
    links = {place: set[int]() for place in range(height * width)}
    for place in range(height * width):
        for joined, other, inside in (
            (right[place], place + 1, place % width < width - 1),
            (below[place], place + width, place // width < height - 1),
        ):
            if joined and inside:
                links[place].add(other)
                links[other].add(place)
    for start in range(height * width):
        reached, edge = {start}, [start]
        while edge:
            fresh = links[edge.pop()] - reached
            reached |= fresh
            edge += fresh
        assert reached == {place for place, label in enumerate(labels) if label == labels[start]}
    assert sorted(set(labels)) == list(range(max(labels) + 1))


@pytest.mark.parametrize(
    ("count", "k", "expected"), [(1, 1, [0]), (9, 1, [0]), (5, 5, [0, 1, 2, 3, 4]), (10, 4, [0, 3, 6, 9])]
)
def test_evenly_spread_down(count: int, k: int, expected: list[int]) -> None:
    assert evenly_spread_down(count, k).tolist() == expected


@given(st.integers(1, 3000), st.integers(1, 60))
def test_evenly_spread_down_is_what_torch_cuts_off(count: int, k: int) -> None:
    k = min(count, k)
    assert evenly_spread_down(count, k).tolist() == torch.linspace(0, count - 1, steps=k).long().tolist()
