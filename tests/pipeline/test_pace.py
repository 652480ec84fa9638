"""The time left, against the truth of synthetic runs."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest

from tokcli.pipeline import progress as module
from tokcli.pipeline.progress import Progress

Seconds = Callable[[int], float]


def estimates(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], cost: Seconds, workers: int = 1
) -> dict[float, tuple[float, float]]:
    """At 10% and 50% of the time: the estimate by bytes alone, and the one shown, each as a multiple of the truth."""
    sizes = sorted(sizes, reverse=True)
    free, finishes = [0.0] * workers, []
    for size in sizes:
        finish = heapq.heappop(free) + cost(size)
        heapq.heappush(free, finish)
        finishes.append((finish, size))
    finishes.sort()
    end, now, found = finishes[-1][0], 0.0, {}
    monkeypatch.setattr(module, "monotonic", lambda: now)
    progress = Progress(items=len(sizes))
    progress.expect(sizes)
    marks = [0.1, 0.5]
    for finish, size in finishes:
        while marks and finish > marks[0] * end:
            now = marks[0] * end
            left, seconds_left = end - now, progress.seconds_left
            assert seconds_left is not None
            by_bytes = now / progress.bytes_done * (progress.bytes_total - progress.bytes_done)
            found[marks.pop(0)] = (by_bytes / left, seconds_left / left)
        now = finish
        progress.finish(size)
    assert progress.seconds_left == pytest.approx(0, abs=1e-6 * end)
    return found


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("seed", range(3))
def test_many_small_files_behind_few_large(monkeypatch: pytest.MonkeyPatch, workers: int, seed: int) -> None:
    """What 40,000 stills behind a few videos did: by bytes, minutes were left for a quarter of an hour."""
    draw = random.Random(seed)
    sizes = [int(draw.lognormvariate(18, 0.5)) for _ in range(20)] + [
        int(draw.lognormvariate(9.5, 0.5)) for _ in range(40_000)
    ]
    found = estimates(monkeypatch, sizes, lambda size: (0.02 + size * 2e-8) * draw.lognormvariate(0, 0.5), workers)
    for by_bytes, shown in found.values():
        assert by_bytes < 1 / 4
        assert 1 / 1.5 < shown < 1.5


@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("spread", [0.0, 0.7])
@pytest.mark.parametrize("seed", range(5))
def test_stills_only(monkeypatch: pytest.MonkeyPatch, workers: int, spread: float, seed: int) -> None:
    draw = random.Random(seed)
    sizes = [int(draw.lognormvariate(12, spread)) for _ in range(5000)]
    found = estimates(monkeypatch, sizes, lambda size: (0.02 + size * 1e-8) * draw.lognormvariate(0, 0.4), workers)
    assert all(1 / 1.5 < shown < 1.5 for _, shown in found.values())


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("item_seconds", [0.0, 0.05])
def test_videos_only(monkeypatch: pytest.MonkeyPatch, seed: int, item_seconds: float) -> None:
    draw = random.Random(seed)
    sizes = [int(draw.lognormvariate(16, 1)) for _ in range(1000)]
    found = estimates(monkeypatch, sizes, lambda size: (item_seconds + size * 4e-8) * draw.lognormvariate(0, 0.2))
    assert all(1 / 1.5 < shown < 1.5 for _, shown in found.values())


def test_too_few_items_tell_nothing_but_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    progress = Progress(items=20)
    progress.expect([100] * 3 + [10] * 17)
    assert (progress.seconds_left, progress.share_done) == (None, 0.0)
    for number in range(3):
        now = 7.0 * (number + 1)
        progress.finish(100)
    assert progress.seconds_left == pytest.approx(21 / 300 * 170)
    assert progress.share_done == pytest.approx(300 / 470)
    progress.take_back(100)
    assert progress.seconds_left == pytest.approx(21 / 200 * 270)


def test_exact_costs_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    sizes = [1000 - 30 * number for number in range(20)]
    progress = Progress(items=1020)
    progress.expect([*sizes, *[1] * 1000])
    for size in sizes:
        now += 2 + 0.01 * size
        progress.finish(size)
    assert progress.seconds_left == pytest.approx(1000 * 2.01)
    assert progress.share_done == pytest.approx(now / (now + 2010))


def test_empty_files_count_as_items(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    progress = Progress(items=40)
    progress.expect([0] * 40)
    for _ in range(20):
        now += 1
        progress.finish(0)
    assert progress.seconds_left == pytest.approx(20)
