"""Sampling is arithmetic: by hand for small cases, by its definition for random ones."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokcli.errors import MediaError, UsageError
from tokcli.media import Limits, Sampling
from tokcli.media.sampling import plan, timeline

LIMITS = Limits()
MS = Fraction(1, 1000)


def line_of(times: list[int], last: int | None = None, unit: Fraction = MS):
    return timeline(np.array(times, np.int64), last, unit)


def test_one_frame_a_second_of_a_two_and_a_half_second_clip():
    line = line_of([100, 600, 1100, 1600, 2100], 500)
    sampled = plan(line, Sampling(fps=1.0), LIMITS)
    assert line.duration_seconds == 2.5
    assert sampled.ticks.tolist() == [100, 1100, 2100]
    assert sampled.frames.tolist() == [0, 2, 4]
    assert sampled.sample_fps == 1.0


def test_no_tick_at_the_very_end():
    assert len(plan(line_of([0, 500], 500), Sampling(fps=1.0), LIMITS).ticks) == 1
    assert len(plan(line_of([0, 500], 501), Sampling(fps=1.0), LIMITS).ticks) == 2


def test_a_frame_that_stays_is_taken_for_every_tick():
    assert plan(line_of([0, 100, 3100], 100), Sampling(fps=1.0), LIMITS).frames.tolist() == [0, 1, 1, 1]


def test_the_frame_taken_never_comes_later_than_its_tick():
    # 999 ms is on display at the first tick, 1001 ms is not there yet.
    assert plan(line_of([0, 999, 1001], 10), Sampling(fps=1.0), LIMITS).frames.tolist() == [0, 1]


def test_number_of_frames_takes_the_centres_of_equal_parts():
    sampled = plan(line_of(list(range(0, 800, 100)), 100), Sampling(num_frames=4), LIMITS)
    assert sampled.ticks.tolist() == [100, 300, 500, 700]
    assert sampled.sample_fps == 5.0


def test_more_frames_than_there_are_repeat():
    assert plan(line_of([0, 100], 100), Sampling(num_frames=4), LIMITS).frames.tolist() == [0, 0, 1, 1]


def test_max_frames_lowers_the_rate_evenly():
    sampled = plan(line_of(list(range(0, 10_000, 100)), 100), Sampling(fps=2.0, max_frames=5), LIMITS)
    assert sampled.ticks.tolist() == [0, 2000, 4000, 6000, 8000]
    assert sampled.sample_fps == 0.5


def test_without_rate_and_number_every_frame_is_taken_once():
    sampled = plan(line_of([5, 7, 100], 10), Sampling(fps=None), LIMITS)
    assert sampled.frames.tolist() == [0, 1, 2]


def test_ntsc_rates_do_not_drift():
    # 30000/1001 fps in units of 1/30000 s: an hour on, frame and tick still agree exactly.
    count = 30 * 3_600
    line = line_of((np.arange(count) * 1001).tolist(), 1001, Fraction(1, 30_000))
    sampled = plan(line, Sampling(fps=1.0), LIMITS)
    number = 30_000 * (len(sampled.ticks) - 1)
    assert sampled.ticks[-1] == number
    assert sampled.frames[-1] == number // 1001


def test_unknown_last_duration_is_the_median_gap_and_a_single_frame_lasts_something():
    assert line_of([0, 40, 80, 1000]).end == 1040
    assert line_of([7]).duration_seconds == pytest.approx(0.04)
    assert len(plan(line_of([7]), Sampling(fps=1.0), LIMITS).ticks) == 1


def test_repeated_times_are_one_frame():
    assert line_of([0, 0, 10, 10], 10).times.tolist() == [0, 10]


@pytest.mark.parametrize(
    "bad",
    [{"fps": 0}, {"fps": -1}, {"fps": 1e9}, {"fps": float("nan")}, {"num_frames": 0}, {"max_frames": 0}],
)
def test_impossible_sampling_is_refused(bad):
    with pytest.raises(UsageError, match="must be"):
        Sampling(**bad)


def test_more_ticks_than_the_limit_are_refused_before_they_are_made():
    line = line_of([0, 10**12], 10)
    with pytest.raises(MediaError, match="--max-frames"):
        plan(line, Sampling(fps=1000.0), LIMITS)


@settings(max_examples=200, deadline=None)
@given(
    gaps=st.lists(st.integers(1, 5000), min_size=0, max_size=40),
    start=st.integers(-(10**6), 10**6),
    last=st.integers(1, 3000),
    fps=st.sampled_from([0.1, 0.5, 1.0, 2.0, 23.976, 29.97]),
)
def test_the_rule_holds_for_any_times(gaps, start, last, fps):
    times = [start + sum(gaps[:place]) for place in range(len(gaps) + 1)]
    line = line_of(times, last)
    sampled = plan(line, Sampling(fps=fps), LIMITS)
    rate = Fraction(fps).limit_denominator(1_000_000)
    exact = [start + k / rate / MS for k in range(len(sampled.ticks))]
    assert exact[-1] < line.end <= start + len(sampled.ticks) / rate / MS
    for tick, number in zip(exact, sampled.frames.tolist()):
        assert times[number] <= tick
        assert number + 1 == len(times) or times[number + 1] > tick
