"""The mix of importance and difference that each picture decides."""

from __future__ import annotations

import math

import pytest
import torch
from method_items import anyres, drifting, video

from tokcli.methods import resolve
from tokcli.methods.balanced import competing, power_for, weights_of
from tokcli.ops.complexity import entropy_nats
from tokcli.ops.diversity import unit_rows, weighted_max_min_order


def test_weighted_order_by_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    unit, weights = unit_rows(torch.randn(40, 6, generator=generator)), torch.rand(40, generator=generator)
    chosen: list[int] = []
    for _ in range(12):
        scores = [
            -math.inf
            if row in chosen
            else float(weights[row]) * min([1.0 - float(unit[row] @ unit[c]) for c in chosen])
            if chosen
            else float(weights[row])
            for row in range(40)
        ]
        chosen.append(max(range(40), key=lambda row: (scores[row], -row)))
    assert weighted_max_min_order(unit, weights, 12).tolist() == chosen


def test_weighted_order_takes_every_row_once() -> None:
    unit = unit_rows(torch.ones(5, 2))
    assert sorted(weighted_max_min_order(unit, torch.tensor([0.0, 0, 1, 0, 0]), 5).tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("count", [2.0, 7.5, 30.0, 49.0])
@pytest.mark.parametrize("spread", [0.2, 2.0])
def test_the_power_makes_so_many_tokens_compete(count: float, spread: float) -> None:
    scores = torch.exp(spread * torch.randn(50, generator=torch.Generator().manual_seed(1)))
    power = power_for(scores, count)
    assert math.exp(entropy_nats(weights_of(scores, power))) == pytest.approx(count, rel=1e-3)
    assert power_for(scores, 50.0) == 0.0


def test_flat_attention_takes_a_larger_power() -> None:
    noise = torch.randn(50, generator=torch.Generator().manual_seed(1))
    assert power_for(torch.exp(0.2 * noise), 10.0) > 4 * power_for(torch.exp(noise), 10.0)


def test_small_budgets_of_rich_pictures_go_to_what_matters() -> None:
    assert competing(10, 100.0, 2.0) == pytest.approx(12)
    assert competing(10, 10.0, 2.0) == competing(10, 5.0, 2.0) == pytest.approx(30)
    assert competing(10, 10.0, 0.0) == 10
    # One direction for all tokens, or as many as there are: the same attention, unlike powers.
    attention = torch.rand(36, generator=torch.Generator().manual_seed(2))
    poor = torch.ones(36, 40) + 0.01 * torch.randn(36, 40, generator=torch.Generator().manual_seed(3))
    powers = []
    for tokens in (poor, torch.eye(36, 40)):
        visual = video(tokens, (1, 6, 6), received_attention=attention)
        stats = resolve("balanced", keep=0.2).compress(visual, "item").stats
        powers.append(float(stats["importance_power"][0]))
        assert stats["attention_entropy"][0] == pytest.approx(entropy_nats(attention))
    assert powers[0] < powers[1]


def test_both_ends_of_the_mix() -> None:
    visual = drifting((3, 8, 8))
    spread = resolve("balanced", keep=0.2, options={"diversity": 1e9}).compress(visual, "item")
    assert torch.equal(spread.source, resolve("divprune", keep=0.2).compress(visual, "item").source)
    peaked = torch.full((64,), 1e-6)
    peaked[torch.tensor([3, 17, 40])] = torch.tensor([3.0, 2.0, 1.0])
    visual = video(
        torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), (1, 8, 8), received_attention=peaked
    )
    matters = resolve("balanced", max_tokens=3, options={"diversity": 0.0}).compress(visual, "item")
    assert matters.source.tolist() == [3, 17, 40]


def test_a_row_of_numbers_for_each_picture_that_lost_tokens() -> None:
    kept = resolve("balanced", keep=0.5).compress(anyres(), "item")
    assert {name: len(values) for name, values in kept.stats.items()} == {
        "effective_rank": 7,
        "attention_entropy": 7,
        "importance_power": 7,
    }
