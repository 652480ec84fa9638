"""holitom, fastvid, prunevid and what they share, where neither golden cases nor the shared properties look."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_items import anyres, check_token_set, drifting, video, with_signals

from tokcli.methods import resolve
from tokcli.methods.holitom import windows
from tokcli.methods.prunevid import refine_labels
from tokcli.ops import density
from tokcli.ops.allocation import proportional
from tokcli.ops.density import DensityPeaks
from tokcli.ops.similarity import mean_pairwise_cosine
from tokcli.types import VisualTokens

FAMILY = pytest.mark.parametrize("name", ["holitom", "fastvid", "prunevid"])


@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=12), data=st.data())
def test_a_division_loses_no_token_and_leaves_no_part_without(sizes: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(sizes)))
    shares = proportional(torch.tensor(sizes), total).tolist()
    assert sum(shares) == total
    assert all(0 <= share <= size for share, size in zip(shares, sizes))
    if total >= sum(size > 0 for size in sizes):
        assert all(share > 0 for share, size in zip(shares, sizes) if size > 0)


def test_a_division_by_hand() -> None:
    assert proportional(torch.tensor([10, 30, 60]), 10).tolist() == [2, 3, 5]
    assert proportional(torch.tensor([5, 5, 5]), 2).tolist() == [1, 1, 0]
    assert proportional(torch.tensor([3, 0, 4]), 7).tolist() == [3, 0, 4]


def brute_force_windows(still: npt.NDArray[np.bool_], most: int) -> int:
    """The most tokens that any cut saves."""
    steps, best = len(still) + 1, 0
    for cuts in product([False, True], repeat=steps - 1):
        edges = [0, *(index + 1 for index, cut in enumerate(cuts) if cut), steps]
        spans = list(pairwise(edges))
        if max(stop - start for start, stop in spans) <= most:
            saved = sum((stop - start - 1) * int(still[start : stop - 1].all(axis=0).sum()) for start, stop in spans)
            best = max(best, saved)
    return best


@settings(max_examples=40, deadline=None)
@given(steps=st.integers(1, 8), places=st.integers(1, 6), most=st.integers(1, 9), seed=st.integers(0, 999))
def test_no_other_cut_saves_more(steps: int, places: int, most: int, seed: int) -> None:
    still = np.random.default_rng(seed).random((steps - 1, places)) < 0.7
    found, saved = windows(still, most)
    assert [start for start, _ in found] == [0, *(stop for _, stop in found[:-1])] and found[-1][1] == steps
    assert all(0 < stop - start <= most for start, stop in found)
    assert saved == brute_force_windows(still, most)
    assert saved == sum((stop - start - 1) * int(still[start : stop - 1].all(axis=0).sum()) for start, stop in found)


def test_a_neighbour_takes_islands_and_what_it_took_counts_for_it() -> None:
    # 1 is dropped and goes to the left run, which is then three long and takes the 2 as well.
    labels = np.array([0, 0, 1, 3, 3, 2, 4, 4, 4])
    np.testing.assert_array_equal(refine_labels(labels), [0, 0, 0, 3, 3, 4, 4, 4, 4])
    np.testing.assert_array_equal(refine_labels(np.array([5, 0, 0, 1, 3, 3, 3])), [0, 0, 0, 0, 3, 3, 3])


def test_distances_are_exact_where_tokens_are_close() -> None:
    points = torch.randn(40, 64, generator=torch.Generator().manual_seed(0)) + 300.0
    points[7], points[20] = points[3], points[3] + 1e-3
    peaks = DensityPeaks(points, 2)
    assert peaks.log_density[3] == peaks.log_density[7] == 0.0
    exact = (points[20] - points[3]).double().square().sum() / 2 / 64
    assert float(-peaks.log_density[20]) == pytest.approx(float(exact), rel=1e-4)


def test_few_rows_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    whole = DensityPeaks(points, 7)
    monkeypatch.setattr(density, "MATRIX_ELEMENTS", 120)
    parts = DensityPeaks(points, 7)
    torch.testing.assert_close(parts.scores, whole.scores)
    assert torch.equal(parts.centres(9), whole.centres(9))
    assert torch.equal(parts.nearest(parts.centres(9)), whole.nearest(whole.centres(9)))


def test_large_norms_leave_densities_apart() -> None:
    points = torch.randn(30, 16, generator=torch.Generator().manual_seed(0)) * 100
    assert DensityPeaks(points, 4).log_density.unique().numel() == 30


def test_the_mean_over_all_pairs() -> None:
    frames = torch.randn(5, 6, 16, generator=torch.Generator().manual_seed(0))
    frames[:, 2] = 0.0
    frames[2, 3] = 0.0
    unit = torch.nn.functional.normalize(frames.double(), dim=-1)
    pairs = torch.einsum("apd,bpd->abp", unit, unit)
    expected = torch.stack([pairs[a, b] for a, b in product(range(5), repeat=2) if a != b]).mean(0)
    torch.testing.assert_close(mean_pairwise_cosine(frames), expected.float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "options"),
    [("holitom", {"variant": "official"}), ("fastvid", {"variant": "official"}), ("prunevid", {})],
)
@pytest.mark.parametrize("share", [None, 0.05, 0.4, 1.0])
def test_what_the_authors_would_keep_is_well_formed(name: str, options: dict[str, Any], share: float | None) -> None:
    gaps = resolve("random", keep=0.5)
    for visual in (drifting((8, 4, 6)), anyres(), drifting((1, 5, 3)), video_of_equal_frames()):
        kept = resolve(name, keep=share, options=options).compress(visual, "item")
        check_token_set(kept, visual, "merge")
        left = gaps.compress(visual, "item")
        rest = replace(
            visual,
            tokens=left.tokens,
            coords=left.coords,
            structural=visual.structural[left.source],
            signals={signal: values[left.source] for signal, values in visual.signals.items()},
        )
        check_token_set(resolve(name, keep=share, options=options).compress(rest, "item"), rest, "merge")


def video_of_equal_frames() -> VisualTokens:
    frame = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    return with_signals(video(frame.repeat(6, 1), (6, 4, 5)), torch.Generator().manual_seed(0))


@FAMILY
@pytest.mark.parametrize("count", [1, 3, 20, 60, 83])
def test_a_number_of_tokens_is_met_over_all_views(name: str, count: int) -> None:
    visual = anyres()
    structural = int(visual.structural.sum())
    kept = resolve(name, max_tokens=count + structural).compress(visual, "item")
    assert len(kept) == min(count + structural, len(visual))


@pytest.mark.parametrize(("name", "options"), [("holitom", {"tau": 0.99}), ("prunevid", {})])
def test_equal_frames_are_averaged_before_anything_is_dropped(name: str, options: dict[str, Any]) -> None:
    visual = video_of_equal_frames()
    kept = resolve(name, max_tokens=20, options=options).compress(visual, "item")
    assert torch.equal(kept.source, torch.arange(20))
    torch.testing.assert_close(kept.tokens, visual.tokens[:20])
    assert torch.equal(kept.mass, torch.full((20,), 6.0))


@FAMILY
def test_turning_all_tokens_alike_changes_no_choice(name: str) -> None:
    visual = drifting((8, 4, 6))
    turn = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(3)))[0]
    turned = replace(visual, tokens=visual.tokens @ turn)
    compressor = resolve(name, keep=0.3)
    kept, expected = compressor.compress(turned, "item"), compressor.compress(visual, "item")
    assert torch.equal(kept.source, expected.source)
    torch.testing.assert_close(kept.tokens, expected.tokens @ turn, atol=1e-4, rtol=0)


def test_a_token_is_assigned_to_the_context_that_it_is_most_like() -> None:
    visual = drifting((8, 4, 6))
    options = {"segments": 1, "tau": -1.0, "context_share": 1.0}
    kept = resolve("fastvid", keep=0.1, options=options).compress(visual, "item")
    assert set(kept.coords[:, 1].tolist()) == {3, 7}, "every fourth step from the last back"
    assert kept.assignment is not None and int(kept.mass.sum()) == len(visual)
    unit = torch.nn.functional.normalize(visual.tokens, dim=1)
    nearest = (unit @ unit[kept.source].T).argmax(dim=1).to(torch.int32)
    nearest[kept.source] = torch.arange(len(kept), dtype=torch.int32)
    assert torch.equal(kept.assignment, nearest)


def test_without_a_budget_prunevid_follows_the_content() -> None:
    compressor = resolve("prunevid")
    still, moving = video_of_equal_frames(), drifting((6, 4, 5))
    assert len(compressor.compress(still, "item")) == 10, "half of the places of one step"
    assert len(compressor.compress(moving, "item")) > 10
