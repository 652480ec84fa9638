"""Bounds of the retained share against sums and formulas written out here."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tokcli.evaluate.tune_bounds import beta_distribution, design_effect, intraclass, retained


@pytest.mark.parametrize(("trials", "hits", "p"), [(50, 47, 0.9), (12, 1, 0.3), (200, 196, 0.97), (3, 3, 0.5)])
def test_beta_distribution_is_a_binomial_tail(trials: int, hits: int, p: float) -> None:
    tail = sum(math.comb(trials, k) * p**k * (1 - p) ** (trials - k) for k in range(hits, trials + 1))
    assert beta_distribution(p, hits, trials - hits + 1) == pytest.approx(tail, abs=1e-12)


def test_beta_distribution_of_fractions_is_the_integral() -> None:
    a, b, x = 2.4, 7.7, 0.3
    points = np.linspace(0, x, 400_001)[1:]
    density = points ** (a - 1) * (1 - points) ** (b - 1)
    constant = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))
    assert beta_distribution(x, a, b) == pytest.approx(constant * float(np.trapezoid(density, points)), abs=1e-7)
    assert beta_distribution(0.5, 3.0, 3.0) == pytest.approx(0.5, abs=1e-12)


def test_without_a_loss_the_bound_is_the_root_of_the_rest() -> None:
    # P(no loss in n answers) = p**n, so p is above 0.1**(1/n) with 90% confidence.
    found = retained(np.ones(114), np.zeros(114), 1.0, 0.9)
    assert found.low == pytest.approx(0.1 ** (1 / 114), abs=1e-9)
    assert found.high == 1.0
    # 113 items are too few for 98%, 114 are enough.
    assert retained(np.ones(113), np.zeros(113), 1.0, 0.9).low < 0.98 < found.low


def test_one_loss_in_forty_by_the_tail_of_the_binomial() -> None:
    found = retained(np.ones(40), np.eye(40)[0], 0.0, 0.9)
    p = 1 - found.low
    assert (1 - p) ** 40 + 40 * p * (1 - p) ** 39 == pytest.approx(0.1, abs=1e-6)
    q = 1 - found.high
    assert 1 - (1 - q) ** 40 == pytest.approx(0.1, abs=1e-6)
    assert found.share == 1 - 1 / 40


def test_answers_that_fare_alike_count_as_one() -> None:
    asked, nothing = np.full(20, 6.0), np.zeros(20)
    assert design_effect(asked, 1.0) == 6.0
    assert design_effect(np.array([2.0, 4.0]), 0.5) == pytest.approx(1 + ((4 + 16) / 6 - 1) * 0.5)
    assert retained(asked, nothing, 1.0, 0.9).low == pytest.approx(0.1 ** (1 / 20), abs=1e-9)
    assert retained(asked, nothing, 0.0, 0.9).low == pytest.approx(0.1 ** (1 / 120), abs=1e-9)
    assert retained(asked, nothing, 1.0, 0.9, times=3).low == pytest.approx(0.1 ** (1 / 60), abs=1e-9)


def test_nothing_asked_tells_nothing() -> None:
    found = retained(np.zeros(3), np.zeros(3), 0.0, 0.9)
    assert (found.low, found.high) == (0.0, 1.0)
    assert math.isnan(found.share)


def test_likeness_of_losses() -> None:
    asked = np.full((1, 4), 2.0)
    assert intraclass(asked, np.array([[2.0, 2, 0, 0]]), 0.0) == 1.0  # all or nothing
    assert intraclass(asked, np.array([[1.0, 1, 1, 1]]), 0.0) == 0.0  # below 0: answers avoid one another
    # Beta-binomial losses have the intraclass correlation 1 / (a + b + 1).
    chances = np.random.default_rng(0).beta(0.9, 0.1, (20, 4000))
    lost = np.random.default_rng(1).binomial(6, 1 - chances).astype(float)
    assert intraclass(np.full(lost.shape, 6.0), lost) == pytest.approx(0.5, abs=0.01)


def test_few_losses_are_taken_for_alike() -> None:
    asked = np.full((1, 4), 2.0)
    assert intraclass(asked, np.zeros((1, 4))) == 1.0
    assert intraclass(np.ones((1, 4)), np.ones((1, 4))) == 1.0  # one answer about each: it does not matter
    # One lost of two answers about each of four items, mean 1/2: the pairs' products are 4 * 2 * (-1/4), the scale is
    # 1/4 * 4 * 2. Five more lost, each along with the one other answer about its item, add 5 to both.
    assert intraclass(asked, np.array([[1.0, 1, 1, 1]]), 5.0) == pytest.approx((-2 + 5) / (2 + 5))
