"""Tensor primitives against slow and obvious definitions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokcli.ops.pooling import cell_centres, grid_cells, grid_shape_within, group_means, nearest_members
from tokcli.ops.selection import evenly_spaced, top_k, top_k_mask
from tokcli.ops.similarity import cosine, cosine_to_previous


def test_cosine_by_definition() -> None:
    left, right = torch.randn(50, 33, dtype=torch.float64), torch.randn(50, 33, dtype=torch.float64)
    expected = [float(a @ b) / math.dist(a, a * 0) / math.dist(b, b * 0) for a, b in zip(left, right)]
    np.testing.assert_allclose(cosine(left, right), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_cosine_to_previous_is_the_cosine_of_neighbours(dtype: torch.dtype) -> None:
    frames = torch.randn(5, 7, 12).to(dtype)
    similarity = cosine_to_previous(frames)
    assert similarity.dtype == torch.float32
    assert torch.equal(similarity[0], torch.full((7,), -1.0))
    for step in range(1, 5):
        assert torch.equal(similarity[step], cosine(frames[step - 1], frames[step]))
    assert torch.equal(cosine_to_previous(frames[2:], frames[1]), similarity[2:])
    assert cosine_to_previous(frames[:0]).shape == (0, 7)


def test_cosine_of_zeros_and_of_equals() -> None:
    row = torch.randn(1000, 64) * torch.logspace(-6, 6, 1000).unsqueeze(1)
    assert bool((cosine(row, row) <= 1).all()) and bool((cosine(row, row) > 0.999999).all())
    assert torch.equal(cosine(row, torch.zeros_like(row)), torch.zeros(1000))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.integers(0, 200))
def test_top_k_takes_the_lowest_index_among_equals(values: list[int], k: int) -> None:
    expected = sorted(range(len(values)), key=lambda index: (-values[index], index))[:k]
    scores = torch.tensor(values, dtype=torch.float32)
    assert top_k(scores, k).tolist() == expected
    assert torch.nonzero(top_k_mask(scores, k)).flatten().tolist() == sorted(expected)


@given(st.integers(1, 10**6), st.integers(1, 300))
def test_evenly_spaced(count: int, k: int) -> None:
    k = min(count, k)
    assert evenly_spaced(count, k).tolist() == [math.floor(Fraction(i * count, k)) for i in range(k)]


@given(st.integers(1, 60), st.integers(1, 60))
def test_cells_partition_an_axis(length: int, cells: int) -> None:
    cells = min(cells, length)
    members = [[i for i, cell in enumerate(grid_cells(length, cells).tolist()) if cell == c] for c in range(cells)]
    assert all(members) and max(map(len, members)) - min(map(len, members)) <= 1
    assert cell_centres(length, cells).tolist() == [places[(len(places) - 1) // 2] for places in members]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 4000))
def test_grid_shape_is_within_the_budget(height: int, width: int, budget: int) -> None:
    rows, columns = grid_shape_within(height, width, budget)
    assert 1 <= rows <= height and 1 <= columns <= width
    assert rows * columns <= budget
    if budget >= height * width:
        assert (rows, columns) == (height, width)


def test_grid_shape_keeps_proportions() -> None:
    assert grid_shape_within(14, 14, 49) == (7, 7)
    assert grid_shape_within(16, 28, 112) == (8, 14)
    assert grid_shape_within(14, 14, 39) == (6, 6)
    assert grid_shape_within(8, 2, 1) == (1, 1)


def test_group_means() -> None:
    rows = torch.tensor([[1.0, 2], [3, 4], [5, 6], [7, 8]]).to(torch.bfloat16)
    means, sizes = group_means(rows, torch.tensor([2, -1, 2, 0]), 4)
    assert means.dtype == torch.bfloat16
    assert means.tolist() == [[7, 8], [0, 0], [3, 4], [0, 0]]
    assert sizes.tolist() == [1, 0, 2, 0]


def test_nearest_members_takes_the_first_of_equals() -> None:
    labels = torch.tensor([1, 0, 1, 0, 1, 0])
    assert nearest_members(labels, torch.tensor([3, 2, 1, 2, 1, 9]), 2).tolist() == [1, 2]


def test_group_means_in_several_runs_of_rows() -> None:
    rows, labels = torch.randn(10000, 3), torch.randint(-1, 5, (10000,))
    means, sizes = group_means(rows, labels, 5)
    for group in range(5):
        torch.testing.assert_close(means[group], rows[labels == group].mean(0), atol=1e-5, rtol=0)
        assert sizes[group] == (labels == group).sum()
