"""temporal_merge against a loop over single tokens, and on scenes that other methods cannot merge."""

from __future__ import annotations

from dataclasses import replace

import faiss
import numpy as np
import pytest
import torch
from method_items import assert_same, chunk, drifting, video

from tokcli.errors import MethodError
from tokcli.methods import resolve
from tokcli.ops.anchors import leaders
from tokcli.ops.nearest import NearestSearch
from tokcli.types import VisualTokens


def one_by_one(visual: VisualTokens, threshold: float) -> set[int]:
    """The rows that are kept when each row is compared with all kept before it."""
    unit = torch.nn.functional.normalize(visual.tokens.double(), dim=1).numpy()
    kept: list[int] = []
    for row in range(len(unit)):
        if not kept or (unit[kept] @ unit[row]).max() <= threshold:
            kept.append(row)
    return set(kept)


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.3, 0.8, 0.95, 1.0])
def test_kept_are_the_tokens_that_resemble_none_kept_before(threshold: float) -> None:
    visual = drifting((12, 5, 4))
    kept = resolve("temporal_merge", threshold=threshold).compress(visual, "item")
    assert set(kept.source.tolist()) == one_by_one(visual, threshold)


def test_every_token_joins_the_most_similar_kept_one() -> None:
    visual = drifting((12, 5, 4))
    kept = resolve("temporal_merge", threshold=0.6).compress(visual, "item")
    assert kept.assignment is not None
    unit = torch.nn.functional.normalize(visual.tokens, dim=1)
    for row, joined in enumerate(kept.assignment.tolist()):
        step = visual.coords[row, 1]
        there = visual.coords[kept.source, 1] <= step
        cosines = (unit[kept.source] @ unit[row]).masked_fill(~there, -1.0)
        best = float(cosines.max())
        # A token that resembles something of an earlier step joins that, whatever its own step brings.
        earlier = (visual.coords[kept.source, 1] < step) & (cosines > 0.6)
        if bool(earlier.any()):
            best = float(cosines[earlier].max())
        assert float(cosines[joined]) == pytest.approx(best, abs=1e-6)


def test_a_merged_token_is_the_mean_at_the_place_of_the_first() -> None:
    tokens = torch.tensor([[1.0, 0], [0, 1], [3, 0], [0, 1], [2, 0], [0, 4]])
    kept = resolve("temporal_merge", threshold=0.9).compress(video(tokens, (3, 1, 2)), "item")
    assert kept.tokens.tolist() == [[2, 0], [0, 2]]
    assert kept.mass.tolist() == [3, 3] and kept.source.tolist() == [0, 1]
    assert kept.coords.tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]


def scene(seed: int, places: int = 12, dim: int = 32) -> torch.Tensor:
    return torch.randn(places, dim, generator=torch.Generator().manual_seed(seed))


def test_a_scene_that_comes_back_is_merged_into_its_first_appearance() -> None:
    shots = torch.stack([scene(0), scene(1), scene(0), scene(2), scene(1)])
    visual = video(shots, (5, 3, 4))
    kept = resolve("temporal_merge").compress(visual, "item")
    assert kept.source.tolist() == [*range(24), *range(36, 48)]
    assert len(resolve("dtd", threshold=0.8).compress(visual, "item")) == 60


def test_a_camera_that_pans_brings_only_what_comes_into_sight() -> None:
    world = torch.randn(3, 10, 32, generator=torch.Generator().manual_seed(0))
    frames = torch.stack([world[:, step : step + 4] for step in range(7)])
    kept = resolve("temporal_merge").compress(video(frames, (7, 3, 4)), "item")
    assert len(kept) == 3 * 10


@pytest.mark.parametrize("count", [1, 2, 3, 17, 100, 191, 192])
@pytest.mark.parametrize("seed", range(3))
def test_a_budget_is_met_exactly(count: int, seed: int) -> None:
    visual = drifting((8, 4, 6), seed=seed)
    assert len(resolve("temporal_merge", max_tokens=count).compress(visual, "item")) == count


@pytest.mark.parametrize("tokens", [torch.ones(60, 8), torch.zeros(60, 8), scene(0).repeat(5, 1)])
def test_a_budget_is_met_where_tokens_are_equal(tokens: torch.Tensor) -> None:
    for count in (1, 7, 30, 59):
        kept = resolve("temporal_merge", max_tokens=count).compress(video(tokens, (5, 3, 4)), "item")
        assert len(kept) == count and float(kept.mass.sum()) == 60


def test_a_budget_goes_to_what_is_new() -> None:
    visual = video(torch.stack([scene(shot) for shot in (0, 0, 0, 1, 1, 0, 2, 1)]), (8, 3, 4))
    kept = resolve("temporal_merge", max_tokens=36).compress(visual, "item")
    assert kept.source.tolist() == [*range(12), *range(36, 48), *range(72, 84)]


@pytest.mark.parametrize("options", [{}, {"reference": "mean"}, {"memory": 20}, {"memory": 20, "forget": "lightest"}])
def test_what_is_kept_of_a_beginning_is_the_beginning_of_what_is_kept(options: dict[str, object]) -> None:
    visual = drifting((12, 4, 5))
    compressor = resolve("temporal_merge", threshold=0.7, options=options)
    whole = compressor.compress(visual, "item")
    for steps in (1, 4, 9):
        part = compressor.compress(chunk(visual, 0, steps), "item")
        assert part.source.tolist() == [row for row in whole.source.tolist() if row < 20 * steps]
        assert part.assignment is not None and whole.assignment is not None
        assert torch.equal(part.assignment, whole.assignment[: 20 * steps])


@pytest.mark.parametrize("forget", ["oldest", "lightest"])
def test_a_memory_that_forgets_keeps_again_what_it_forgot(forget: str) -> None:
    shots = torch.stack([scene(0), scene(0), scene(1), scene(2), scene(0)])
    visual = video(shots, (5, 3, 4))
    options = {"memory": 28, "forget": forget}
    kept = resolve("temporal_merge", threshold=0.8, options=options).compress(visual, "item")
    # The third shot does not fit: a whole shot leaves, either the first one or the one that nothing joined.
    assert len(kept) == (48 if forget == "oldest" else 36)


def test_the_mean_follows_a_drift_that_an_anchor_does_not() -> None:
    angles = torch.linspace(0, 1.5, 30)
    visual = video(torch.stack([angles.cos(), angles.sin()], dim=1), (30, 1, 1))
    anchor = resolve("temporal_merge", threshold=0.8).compress(visual, "item")
    mean = resolve("temporal_merge", threshold=0.8, options={"reference": "mean"}).compress(visual, "item")
    assert len(anchor) > 1 and len(mean) < len(anchor)


@pytest.mark.parametrize("budget", [{"threshold": 0.7}, {"keep": 0.2}])
def test_inverted_lists_find_nearly_the_same(budget: dict[str, float]) -> None:
    visual = drifting((20, 8, 8), dim=24)
    flat = resolve("temporal_merge", options={"index": "flat"}, **budget).compress(visual, "item")
    lists = resolve("temporal_merge", options={"index": "ivf"}, **budget).compress(visual, "item")
    both = np.intersect1d(flat.source.numpy(), lists.source.numpy())
    assert len(both) > 0.8 * len(flat)
    assert_same(lists, resolve("temporal_merge", options={"index": "ivf"}, **budget).compress(visual, "item"))


def test_large_images_are_taken_in_parts() -> None:
    visual = video(torch.randn(2500, 8, generator=torch.Generator().manual_seed(0)), (1, 50, 50))
    kept = resolve("temporal_merge", threshold=0.9).compress(visual, "item")
    assert set(kept.source.tolist()) == one_by_one(visual, 0.9)


def test_structural_rows_are_neither_merged_nor_compared_with() -> None:
    structural = torch.zeros(60, dtype=torch.bool)
    structural[::12] = True
    visual = replace(video(torch.ones(60, 8), (5, 3, 4)), structural=structural)
    kept = resolve("temporal_merge").compress(visual, "item")
    assert kept.source.tolist() == [0, 1, 12, 24, 36, 48]
    assert kept.mass.tolist() == [1, 55, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"keep": "0.5", "memory": "10"}, "memory needs a threshold"),
        ({"keep": "0.5", "reference": "mean"}, "'mean' needs a threshold"),
        ({"reference": "mean", "index": "ivf"}, "'mean' needs index='flat'"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, str], reason: str) -> None:
    with pytest.raises(MethodError, match=reason):
        resolve("temporal_merge", options=options)


def test_leaders_are_those_of_a_plain_loop() -> None:
    generator = np.random.default_rng(0)
    for share in (0.0, 0.05, 0.3, 1.0):
        alike = generator.random((40, 40)) < share
        alike |= alike.T
        leading: list[int] = []
        for row in range(40):
            if not alike[row, leading].any():
                leading.append(row)
        assert np.flatnonzero(leaders(alike)).tolist() == leading


def test_searching_leaves_the_threads_of_faiss_alone() -> None:
    threads = faiss.omp_get_max_threads()
    rows = np.eye(4, dtype=np.float32)
    products, found = NearestSearch().search(rows[[2, 0]], rows)
    assert products.tolist() == [1, 1] and found.tolist() == [2, 0]
    assert faiss.omp_get_max_threads() == threads


@pytest.mark.parametrize("queries", [1, 50])
def test_equally_near_rows_are_told_apart_by_their_number(queries: int) -> None:
    rows = np.ones((3000, 8), dtype=np.float32)
    _, found = NearestSearch("flat").search(rows[:queries], rows)
    assert (found == 0).all()
