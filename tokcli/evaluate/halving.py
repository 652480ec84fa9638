"""The search for the smallest setting that keeps enough answers. Read :func:`choose` first.

Two parts of the sample, so that no estimate is of the answers that it was chosen by:

- On the first, successive halving: of every method the smallest budget that is not lost is found on a few items by
  bisection; the half of the methods with the fewest tokens goes on to twice as many items, and so on. A budget that
  turns out to be lost gives way to the next larger one.
- On the other, which the search has not seen, a fixed sequence of tests: budgets of the method that is left, from a
  safer one than was found down to the smallest. It ends at the first that is not sure to keep enough; the one before is
  the choice. However many are tested, a choice that keeps too little passes as seldom as one test alone would let it
  (fixed-sequence testing, as in Learn then Test, arXiv:2110.01052, and Pareto Testing, arXiv:2210.07913).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tokcli.evaluate.tune_board import Board, Trials
from tokcli.evaluate.tune_bounds import Retained

DROP_CONFIDENCE = 0.8
"""In the search a setting is lost when one can be as sure as this that it keeps too little."""
SEARCH_ITEMS, SEARCH_TIME = 1 / 4, 0.45
"""Parts of the items and of the seconds that the search gets at most; testing gets the rest."""
FIRST_SLICE = 1 / 8
"""Part of the search's items that all methods are measured on."""
SAFER_STEPS = 2
"""How many budgets above the one that was found the tests begin, if there is time."""
TEST_SLICE = 8
"""Items between two looks at the clock in a test."""
SPACING = 1.1
"""Settings whose tokens differ by less than this factor count as equally small; the one that lost less goes first."""
LARGER = "others keep fewer tokens"
"""Why a setting that lost nothing is set aside."""


@dataclass(frozen=True)
class Rules:
    retain: float
    confidence: float = 0.9
    """Of the bound that the choice has to reach, one-sided."""


@dataclass
class Choice:
    """What was found."""

    setting: int | None = None
    """None: nothing smaller than all tokens keeps enough."""
    certain: bool = False
    """Whether its lower bound reaches what was asked for."""
    verdicts: dict[int, str] = field(default_factory=dict)
    """Of settings that are out of the search: why, and in which round."""
    tested: dict[int, Retained] = field(default_factory=dict)
    """By setting, in the order of the tests; on the items that the search has not seen."""
    rounds: list[tuple[int, int, int]] = field(default_factory=list)
    """Of the search: items so far, settings measured in it, methods left after it."""
    test_items: int = 0
    out_of_time: bool = False

    @property
    def retained(self) -> Retained | None:
        """Of the chosen setting."""
        return None if self.setting is None else self.tested[self.setting]

    @property
    def search_items(self) -> int:
        return self.rounds[-1][0] if self.rounds else 0


def split(items: int) -> tuple[list[list[int]], list[int]]:
    """Items of each round of the search, from the second on as many as all before, and the items to test on.

    Of 128 the search gets 4, 4, 8 and 16, and testing 96.
    """
    search = max(1, round(items * SEARCH_ITEMS))
    size = max(1, round(search * FIRST_SLICE))
    ends = [0]
    while ends[-1] < search:
        ends.append(min(search, 2 * ends[-1] or size))
    return [list(range(start, end)) for start, end in pairwise(ends)], list(range(search, items))


def choose(trials: Trials, chains: Sequence[Sequence[int]], items: int, rules: Rules) -> tuple[Choice, Board]:
    """Search, then test.

    Args:
        trials: measures settings on items, both by number from 0.
        chains: settings of one method, from the most tokens to the fewest, for each method.
        items: how many there are, at least 2, in random order.
    """
    slices, held_out = split(items)
    board = Board(trials, sum(map(len, chains)), items)
    search = _Search(board, chains, rules)
    search.run(slices)
    best = search.best()
    if best is not None:
        chain = search.chains[best]
        others = [search.chains[other][place] for other, place in search.least.items() if other != best]
        _test(board, chain, search.least[best], others, held_out, rules, search.choice)
    return search.choice, board


class _Search:
    """Successive halving of methods, each with the smallest budget that is not lost."""

    def __init__(self, board: Board, chains: Sequence[Sequence[int]], rules: Rules) -> None:
        self.board, self.rules, self.choice = board, rules, Choice()
        self.chains = [list(chain) for chain in chains]
        self.least: dict[int, int] = {}
        """By chain that is still in it: the place of its smallest budget that is not lost."""

    def run(self, slices: Sequence[Sequence[int]]) -> None:
        self._measured: set[int] = set()
        for number, items in enumerate(slices, 1):
            self._measured.clear()
            if number > 1 and not self.board.affords(len(self.least), items, SEARCH_TIME):
                self.choice.out_of_time = True
                return
            if number == 1:
                self._bisect(items)
            else:
                self._go_on(items, number)
            self._halve(number)
            seen = items[-1] + 1
            self.choice.rounds.append((seen, len(self._measured), len(self.least)))

    def best(self) -> int | None:
        """The chain of the method with the fewest tokens."""
        return min(self.least, key=self._promise) if self.least else None

    def _measure(self, settings: Sequence[int], items: Sequence[int]) -> None:
        self.board.measure(settings, items)
        self._measured.update(settings)

    def _is_lost(self, setting: int) -> bool:
        board = self.board
        return setting in board.impossible or board.estimate(setting, DROP_CONFIDENCE).high < self.rules.retain

    def _bisect(self, items: Sequence[int]) -> None:
        """Of each method the boundary between what is lost and what is not; more tokens are taken to lose no more."""
        good = dict.fromkeys(range(len(self.chains)), -1)
        lost = {number: len(chain) for number, chain in enumerate(self.chains)}
        while going := [number for number in good if lost[number] - good[number] > 1]:
            middle = {number: (good[number] + lost[number]) // 2 for number in going}
            batch = [self.chains[number][place] for number, place in middle.items()]
            if not self.board.affords(len(batch), items, SEARCH_TIME):
                self.choice.out_of_time = True
                break
            self._measure(batch, items)
            for number, place in middle.items():
                side = lost if self._is_lost(self.chains[number][place]) else good
                side[number] = place
        for number, chain in enumerate(self.chains):
            for place, setting in enumerate(chain):
                if self.board.seen[setting].any() and place >= lost[number]:
                    self._drop(setting, "loses answers", 1)
            if good[number] >= 0:
                self.least[number] = good[number]

    def _go_on(self, items: Sequence[int], number: int) -> None:
        """More items for the budgets that were found; where one is lost now, for the next larger one, and so on."""
        due = list(self.least)
        while due:
            self._measure([self.chains[chain][self.least[chain]] for chain in due], items)
            lost = [chain for chain in due if self._is_lost(self.chains[chain][self.least[chain]])]
            for chain in lost:
                self._drop(self.chains[chain][self.least[chain]], "loses answers", number)
                self.least[chain] -= 1
                if self.least[chain] < 0:
                    del self.least[chain]
            due = [chain for chain in lost if chain in self.least]
            if due and not self.board.affords(len(due), items, SEARCH_TIME):
                self.choice.out_of_time = True
                return

    def _halve(self, number: int) -> None:
        """Set the half with more tokens aside; two go on to the end."""
        order = sorted(self.least, key=self._promise)
        for chain in order[max(2, math.ceil(len(order) / 2)) :]:
            self._drop(self.chains[chain][self.least.pop(chain)], LARGER, number)

    def _promise(self, chain: int) -> tuple[float, float]:
        """Sorts methods: the smallest first, then by what they keep; last where time did not allow to measure it."""
        setting = self.chains[chain][self.least[chain]]
        if not self.board.seen[setting].any():
            return math.inf, 0.0
        share = max(self.board.share(setting), 1e-9)
        return math.floor(math.log(share, SPACING)), -self.board.estimate(setting, DROP_CONFIDENCE).share

    def _drop(self, setting: int, why: str, number: int) -> None:
        self.choice.verdicts[setting] = f"round {number}: {why}"


def _test(
    board: Board,
    chain: Sequence[int],
    found: int,
    others: Sequence[int],
    items: Sequence[int],
    rules: Rules,
    choice: Choice,
) -> None:
    """The sequence of tests down the method, from ``SAFER_STEPS`` above the place that was found.

    ``others`` are what was found for other methods that came as far: where nothing is certain, those are looked at too.
    """
    shortest = items[:TEST_SLICE]
    while items and not board.affords(1, items):
        items = items[: len(items) * 9 // 10]
        choice.out_of_time = True
    items = items or shortest
    safer = SAFER_STEPS
    while safer and not board.affords(safer + 1, items):
        safer -= 1
    plausible: int | None = None
    for place in range(max(0, found - safer), len(chain)):
        result = _tested(board, chain[place], items, rules, choice)
        if result is None:
            break
        if result.low >= rules.retain and plausible is None:
            choice.setting, choice.certain = chain[place], True
        elif choice.certain or not result.share >= rules.retain:
            break
        else:
            # The first that is not sure ends what can be certain; after it the smallest is looked for that may do.
            plausible = chain[place]
    if choice.setting is None:
        choice.setting = plausible
    for place in range(max(0, found - safer) - 1, -1, -1):
        if choice.setting is not None:
            break
        result = _tested(board, chain[place], items, rules, choice)
        if result is not None and result.share >= rules.retain:
            choice.setting = chain[place]
    if not choice.certain:
        for setting in others:
            if choice.setting is None or board.share(setting) < board.share(choice.setting):
                _tested(board, setting, items, rules, choice)
        enough = [setting for setting, result in choice.tested.items() if result.share >= rules.retain]
        choice.setting = min(enough, key=board.share, default=None)


def _tested(board: Board, setting: int, items: Sequence[int], rules: Rules, choice: Choice) -> Retained | None:
    """None where there is no time, or the setting cannot be met.

    When time ends within a test its bound is that of the items so far: the clock knows nothing of their answers.
    """
    done = 0
    while done < len(items):
        part = items[done : done + TEST_SLICE]
        if (done or choice.tested) and not board.affords(1, part):
            choice.out_of_time = True
            break
        board.measure([setting], part)
        done += len(part)
    if not done or setting in board.impossible:
        return None
    choice.tested[setting] = board.estimate(setting, rules.confidence, items[:done])
    choice.test_items = max(choice.test_items, done)
    return choice.tested[setting]
