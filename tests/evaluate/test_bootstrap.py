"""Means, intervals and fronts against arithmetic by hand and slow loops."""

from __future__ import annotations

import zlib
from statistics import NormalDist

import numpy as np
import pytest

from tokcli.evaluate.bootstrap import bootstrap_means, pareto


def quantile(values: list[float], share: float) -> float:
    """Linear interpolation between the sorted values."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    return ordered[low] + (place - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low])


def test_equal_to_a_loop_that_draws_clip_by_clip() -> None:
    generator = np.random.default_rng(1)
    counts = generator.integers(0, 5, 12).astype(float)
    sums = np.stack([generator.integers(0, count + 1, 3) for count in counts], axis=1).astype(float)
    found = bootstrap_means(sums, counts, reference=0, samples=60, seed=5, stratum="count")
    clips = [index for index, count in enumerate(counts) if count]
    draws = np.random.default_rng([5, zlib.crc32(b"count")]).multinomial(
        len(clips), [1 / len(clips)] * len(clips), size=60
    )
    for setting in range(3):
        means, differences = [], []
        for draw in draws:
            drawn = [clip for clip, times in zip(clips, draw) for _ in range(times)]
            asked = sum(counts[clip] for clip in drawn)
            mine, full = (sum(sums[row][clip] for clip in drawn) / asked for row in (setting, 0))
            means.append(mine)
            differences.append(mine - full)
        assert found.mean[setting] == pytest.approx(sums[setting].sum() / counts.sum())
        assert found.interval[setting] == pytest.approx([quantile(means, 0.025), quantile(means, 0.975)])
        assert found.difference is not None and found.difference_interval is not None
        assert found.difference[setting] == pytest.approx((sums[setting] - sums[0]).sum() / counts.sum())
        assert found.difference_interval[setting] == pytest.approx(
            [quantile(differences, 0.025), quantile(differences, 0.975)]
        )


def test_by_hand() -> None:
    # Two clips, two questions each: 3 of 4 right, and 2 of 4. Resampled means are 1, 3/4, 1/2, and 1, 1/2, 0.
    found = bootstrap_means(np.array([[2.0, 1.0], [2.0, 0.0]]), np.array([2.0, 2.0]), reference=0, samples=400, seed=0)
    assert found.mean.tolist() == [0.75, 0.5]
    assert found.interval.tolist() == [[0.5, 1.0], [0.0, 1.0]]
    assert found.difference is not None and found.difference_interval is not None
    assert found.difference.tolist() == [0.0, -0.25]
    assert found.difference_interval.tolist() == [[0.0, 0.0], [-0.5, 0.0]]


def test_width_is_that_of_the_normal_approximation() -> None:
    right = np.zeros((1, 1000))
    right[0, :300] = 1
    (low, high) = bootstrap_means(right, np.ones(1000), reference=None, samples=4000, seed=3).interval[0]
    half = NormalDist().inv_cdf(0.975) * np.sqrt(0.3 * 0.7 / 1000)
    assert (low, high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.1 * half)


def test_questions_about_one_clip_are_no_further_evidence() -> None:
    right = np.zeros((1, 100))
    right[0, :60] = 1
    once = bootstrap_means(right, np.ones(100), reference=None, samples=500, seed=0)
    four = bootstrap_means(4 * right, np.full(100, 4.0), reference=None, samples=500, seed=0)
    assert np.allclose(once.interval, four.interval)


def test_pairing_narrows_a_difference() -> None:
    generator = np.random.default_rng(0)
    full = generator.integers(0, 2, 200).astype(float)
    worse = full.copy()
    worse[np.flatnonzero(full)[:6]] = 0
    found = bootstrap_means(np.stack([full, worse]), np.ones(200), reference=0, samples=1000, seed=0)
    assert found.difference_interval is not None
    paired = np.diff(found.difference_interval[1])[0]
    assert paired < 0.5 * np.diff(found.interval[1])[0]
    assert found.difference_interval[1][1] <= 0


def test_blocks_of_draws_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    sums, counts = np.random.default_rng(2).random((2, 30)), np.ones(30)
    whole = bootstrap_means(sums, counts, reference=1, samples=101, seed=7)
    monkeypatch.setattr("tokcli.evaluate.bootstrap._DRAWS_AT_A_TIME", 90)
    parts = bootstrap_means(sums, counts, reference=1, samples=101, seed=7)
    assert np.allclose(whole.interval, parts.interval, rtol=1e-12)


def test_a_setting_without_results_stays_alone() -> None:
    sums = np.array([[1.0, 1.0], [np.nan, 1.0]])
    found = bootstrap_means(sums, np.ones(2), reference=0, samples=50, seed=0)
    assert found.mean[0] == 1 and np.isnan(found.mean[1])
    assert found.interval[0].tolist() == [1, 1] and np.isnan(found.interval[1]).all()
    nothing = bootstrap_means(sums, np.zeros(2), reference=0, samples=50, seed=0)
    assert np.isnan(nothing.mean).all()


def test_front() -> None:
    costs = np.array([100, 50, 50, 20, 20, 10, 5, np.nan])
    gains = np.array([0.9, 0.9, 0.8, 0.7, 0.7, 0.75, np.nan, 1.0])
    # 100 loses to the cheaper 50, both at 20 to the better and cheaper 10; equals would both stay.
    assert pareto(costs, gains).tolist() == [False, True, False, False, False, True, False, False]
    assert pareto(np.array([3.0, 3.0]), np.array([0.5, 0.5])).tolist() == [True, True]
