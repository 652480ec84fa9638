"""How a sample stands for all inputs: by hand, and over many drawn data sets."""

from __future__ import annotations

import random

import pytest

from tokcli.pipeline.plan import Stratum, estimate, stratify
from tokcli.types import MediaItem


def item(number: int, size: int) -> MediaItem:
    return MediaItem(f"{number}.mp4", f"{number}.mp4", size, 1)


@pytest.mark.parametrize("parts", [1, 2, 5, 8, 50])
def test_parts_cover_all_inputs_in_order_of_size(parts: int) -> None:
    generator = random.Random(parts)
    items = [item(number, int(generator.lognormvariate(12, 2))) for number in range(40)]
    strata = stratify(items, parts, generator)
    laid_out = [one for stratum in strata for one in stratum.items]
    assert sorted(one.id for one in laid_out) == sorted(one.id for one in items)
    sizes = [one.size_bytes for one in laid_out]
    assert sizes == sorted(sizes)
    assert all(stratum.chosen in stratum.items for stratum in strata)
    assert len(strata) <= parts
    if parts >= len(items):
        assert all(len(stratum.items) == 1 for stratum in strata)


def test_neither_many_small_nor_few_large_files_are_left_out() -> None:
    stills, videos = [item(number, 100_000) for number in range(1000)], [item(2000 + n, 100_000_000) for n in range(20)]
    chosen = [stratum.chosen.size_bytes for stratum in stratify([*stills, *videos], 8, random.Random(0))]
    assert chosen.count(100_000) >= 2 and chosen.count(100_000_000) >= 2


def stratum(chosen: int, *others: int) -> Stratum:
    items = [item(size, size) for size in (chosen, *others)]
    return Stratum(tuple(items), items[0])


def test_a_total_by_hand() -> None:
    strata = [stratum(10, 30), stratum(100, 50), stratum(1000)]
    # Rates of 2, 3 and 1 for a byte, over parts of 40, 150 and 1,000 bytes.
    found = estimate(strata, {"10.mp4": 20, "100.mp4": 300, "1000.mp4": 1000})
    assert found.value == 2 * 40 + 3 * 150 + 1 * 1000
    assert found.low is not None and found.high is not None
    assert found.low < found.value < found.high
    # Next in size, and the lower of two: the failed one's part takes the rate 2.
    assert estimate(strata, {"10.mp4": 20, "1000.mp4": 1000}).value == 2 * 40 + 2 * 150 + 1 * 1000


def test_nothing_to_guess() -> None:
    strata = [stratum(10), stratum(100)]
    found = estimate(strata, {"10.mp4": 7, "100.mp4": 5})
    assert found.low == found.value == found.high == 12
    same_rate = estimate([stratum(10, 20), stratum(100, 70)], {"10.mp4": 30, "100.mp4": 300})
    assert same_rate.low == pytest.approx(same_rate.value) == pytest.approx(same_rate.high) == 600
    assert estimate([stratum(10, 20)], {"10.mp4": 0}).high == 0
    alone = estimate([stratum(10, 20), stratum(100, 70)], {"10.mp4": 30})
    assert (alone.value, alone.low, alone.high) == (600, None, None)


@pytest.mark.parametrize(("parts", "scatter"), [(4, 0.5), (8, 0.5), (8, 1.0), (20, 0.5)])
def test_the_spread_holds_the_truth_as_often_as_it_says(parts: int, scatter: float) -> None:
    held, runs = 0, 200
    for seed in range(runs):
        generator = random.Random(seed)
        items = [item(number, int(generator.lognormvariate(14, 1.5)) + 1) for number in range(300)]
        values = {one.id: one.size_bytes * generator.lognormvariate(0, scatter) for one in items}
        strata = stratify(items, parts, generator)
        found = estimate(strata, {one.chosen.id: values[one.chosen.id] for one in strata})
        assert found.low is not None and found.high is not None
        held += found.low <= sum(values.values()) <= found.high
    assert 0.82 <= held / runs <= 0.97
