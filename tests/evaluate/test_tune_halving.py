"""The search on tables of outcomes whose truth is known; no model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from tokcli.evaluate.halving import Rules, choose, split
from tokcli.evaluate.tune_board import Cells
from tokcli.evaluate.tune_report import Found, _verdict

SHARES = (0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05)
QUESTIONS = 6


class Table:
    """Beta-binomial losses: settings with a true retained share, answers about one item alike by ``likeness``.

    An outcome takes a second, asking of all tokens half as much again.
    """

    def __init__(
        self, truth: Sequence[float], shares: Sequence[float], items: int, likeness: float, seed: int, allowed: float
    ) -> None:
        rng = np.random.default_rng(seed)
        scale = (1 - likeness) / likeness
        loss = np.maximum(1e-12, 1 - np.array(truth))[:, None]
        chances = rng.beta(loss * scale, (1 - loss) * scale, (len(truth), items))
        self.lost = rng.binomial(QUESTIONS, chances).astype(np.float64)
        self.shares = np.array(shares)
        self.allowed, self.spent = allowed, 0.0
        self.calls: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self._known: set[int] = set()

    def run(self, settings: Sequence[int], items: Sequence[int]) -> Cells:
        self.calls.append((tuple(settings), tuple(items)))
        self.spent += len(settings) * len(items) + 1.5 * len(set(items) - self._known)
        self._known |= set(items)
        shape = (len(settings), len(items))
        kept = np.repeat(100 * self.shares[list(settings)][:, None], len(items), axis=1)
        return Cells(kept, np.full(shape, 100.0), np.full(shape, QUESTIONS), self.lost[np.ix_(settings, items)])


def world(rng: np.random.Generator, borderline: bool) -> tuple[list[list[int]], list[float], list[float]]:
    """Five methods at seven budgets: each loses nothing down to its own budget, and more and more below.

    ``borderline`` puts what lies just below at 97%, where it is hardest to tell from the 98% that are asked for.
    """
    chains, truth, shares = [], [], []
    for _ in range(5):
        knee, slope = int(rng.integers(0, 7)), rng.uniform(0.05, 0.2)
        chains.append(list(range(len(truth), len(truth) + 7)))
        for place, share in enumerate(SHARES):
            below = place - knee
            loss = 0.003 if below <= 0 else 0.03 + (below - 1) * slope if borderline else below * slope
            truth.append(1 - min(0.9, loss))
            shares.append(share)
    return chains, truth, shares


@pytest.mark.parametrize(("items", "likeness"), [(64, 0.1), (128, 0.3)])
def test_a_choice_holds_out_of_sample_at_the_promised_rate(items: int, likeness: float) -> None:
    rng, runs = np.random.default_rng(5), 100
    wrong = certain = 0
    for run in range(runs):
        chains, truth, shares = world(rng, borderline=True)
        choice, _ = choose(Table(truth, shares, items, likeness, run, math.inf), chains, items, Rules(0.98, 0.9))
        if choice.certain:
            assert choice.setting is not None
            certain += 1
            wrong += truth[choice.setting] < 0.98
    # At most 10% in truth: 100 draws of 10% give more than 17 once in a hundred times.
    assert wrong <= 17
    assert certain >= 0.4 * runs


def test_it_finds_the_smallest_setting_where_that_is_plain() -> None:
    rng, runs = np.random.default_rng(6), 30
    ratios = []
    for run in range(runs):
        chains, truth, shares = world(rng, borderline=False)
        choice, _ = choose(Table(truth, shares, 192, 0.2, run, math.inf), chains, 192, Rules(0.98))
        best = min(share for share, true in zip(shares, truth) if true >= 0.98)
        ratios.append(1 / best if choice.setting is None else shares[choice.setting] / best)
    assert float(np.median(ratios)) == 1.0
    assert float(np.mean(ratios)) < 1.6


def test_the_choice_is_made_on_items_that_the_search_has_not_seen() -> None:
    slices, held_out = split(128)
    assert [len(part) for part in slices] == [4, 4, 8, 16]
    assert [item for part in slices for item in part] == list(range(32))
    assert held_out == list(range(32, 128))
    table = Table([0.999] * 7, SHARES, 128, 0.1, 0, math.inf)
    choice, board = choose(table, [list(range(7))], 128, Rules(0.9))
    searched = len(table.calls) - 3 * len(held_out) // 8
    assert all(item < 32 for _, items in table.calls[:searched] for item in items)
    # From two budgets above the one that was found downwards, one after the other, all on all of these items.
    tests = table.calls[searched:]
    assert [settings[0] for settings, _ in tests] == [4] * 12 + [5] * 12 + [6] * 12
    assert [item for _, items in tests for item in items] == 3 * held_out
    assert list(choice.tested) == [4, 5, 6]
    assert choice.setting == 6 and choice.certain
    assert board.share(6) == 0.05


def test_bisection_tries_few_budgets_and_no_smaller_one_than_what_is_lost() -> None:
    truth = [1, 1, 1, 1, 0.3, 0.3, 0.3]
    table = Table(truth, SHARES, 64, 0.1, 3, math.inf)
    choice, board = choose(table, [list(range(7))], 64, Rules(0.95))
    assert choice.setting == 3
    assert [settings for settings, _ in table.calls[:3]] == [(3,), (5,), (4,)]
    assert not board.seen[6].any()
    assert choice.verdicts[4] == choice.verdicts[5] == "round 1: loses answers"


def test_too_few_items_are_no_certainty() -> None:
    choice, _ = choose(Table([1.0] * 7, SHARES, 16, 0.1, 0, math.inf), [list(range(7))], 16, Rules(0.98))
    assert choice.setting == 6
    assert not choice.certain
    assert choice.retained is not None and choice.retained.share == 1.0 and choice.retained.low < 0.98


def test_where_everything_loses_nothing_is_chosen() -> None:
    choice, _ = choose(Table([0.4] * 7, SHARES, 64, 0.1, 0, math.inf), [list(range(7))], 64, Rules(0.98))
    assert choice.setting is None and choice.retained is None and not choice.certain


def test_nothing_is_certain_after_the_first_test_that_failed() -> None:
    table = Table([1.0] * 7, SHARES, 128, 0.1, 0, math.inf)
    # 16 of the 576 answers about the items that are tested on: too many to be sure of 96%, not to look worse than that.
    table.lost[4, 40:56] = 1
    choice, _ = choose(table, [list(range(7))], 128, Rules(0.96))
    assert list(choice.tested) == [4, 5, 6]
    assert choice.tested[4].low < 0.96 <= choice.tested[4].share
    assert choice.tested[6].low >= 0.96
    assert choice.setting == 6 and not choice.certain


def test_an_uncertain_choice_is_not_larger_than_what_another_method_keeps_enough_with() -> None:
    table = Table([1.0] * 4, (0.75, 0.1, 0.75, 0.25), 128, 0.1, 0, math.inf)
    # Of the items that are tested on: at 0.75 a little too much is lost to be sure of 96%, at 0.1 nearly everything.
    table.lost[0, 40:56] = 1
    table.lost[1, 40:] = QUESTIONS
    choice, board = choose(table, [[0, 1], [2, 3]], 128, Rules(0.96))
    assert list(choice.tested) == [0, 1, 3]
    # It passes its test, but was not in the sequence that was fixed before: no certainty.
    assert choice.tested[3].low >= 0.96
    assert choice.setting == 3 and not choice.certain

    def verdict(setting: int) -> str:
        return _verdict(Found([], choice, board, 128, 0, True, 1.0, 0.96), setting)

    assert [verdict(setting) for setting in (0, 1, 3)] == ["tested: not sure to keep enough"] * 2 + [
        "chosen, uncertain"
    ]
    # As if there had been no time for the other method.
    del choice.tested[3]
    choice.setting = 0
    assert verdict(3) == "not tested, others promised more"


@pytest.mark.parametrize("allowed", [300.0, 150.0, 40.0])
def test_it_keeps_to_its_time(allowed: float) -> None:
    rng = np.random.default_rng(8)
    for run in range(10):
        chains, truth, shares = world(rng, borderline=False)
        table = Table(truth, shares, 64, 0.2, run, allowed)
        choice, _ = choose(table, chains, 64, Rules(0.98))
        assert table.spent <= 1.02 * allowed
        # What is certain was tested, however little time there was.
        assert not choice.certain or (choice.retained is not None and choice.retained.low >= 0.98)
        assert allowed > 40 or choice.out_of_time


def test_settings_that_cannot_be_met_are_not_chosen() -> None:
    class Refusing(Table):
        def run(self, settings: Sequence[int], items: Sequence[int]) -> Cells:
            cells = super().run(settings, items)
            small = self.shares[list(settings)] < 0.2
            cells.kept[small], cells.asked[small], cells.lost[small] = np.nan, 0, 0
            return cells

    choice, board = choose(Refusing([1.0] * 7, SHARES, 128, 0.1, 0, math.inf), [list(range(7))], 128, Rules(0.9))
    assert choice.setting == 3 and choice.certain
    assert board.impossible == {4, 5}


def test_the_same_outcomes_give_the_same_choice() -> None:
    chains, truth, shares = world(np.random.default_rng(9), borderline=True)
    first, second = (choose(Table(truth, shares, 64, 0.2, 4, 300.0), chains, 64, Rules(0.98))[0] for _ in range(2))
    assert first == second
