"""The search for the smallest setting that keeps enough answers. Read :func:`choose` first.

Two parts of the sample, so that no estimate is of the answers that it was chosen by:

- On the first, successive halving: all settings on a few items, the more promising half on twice as many, and so on.
- On the other, which the search has not seen, a fixed sequence of tests, from the safest of the settings that are left
  to the smallest. It ends at the first that is not sure to keep enough; the one before is the choice. However many are
  tested, a choice that is too small passes as seldom as one test alone would let it (fixed-sequence testing; Learn then
  Test, arXiv:2110.01052; Pareto Testing, arXiv:2210.07913).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tokcli.evaluate.tune_board import Board, Trials
from tokcli.evaluate.tune_bounds import Retained, surely_better

DROP_CONFIDENCE = 0.95
SEARCH_ITEMS, SEARCH_TIME = 1 / 4, 0.4
"""Parts of the items and of the seconds that the search gets; testing gets the rest."""
FIRST_SLICE = 1 / 8
"""Part of the search's items that all settings are measured on."""
STEPS = 5
"""Settings in the sequence of tests, at most."""
SPACING = 1.1
"""Two settings in the sequence differ in tokens at least by this factor."""


@dataclass(frozen=True)
class Rules:
    retain: float
    confidence: float = 0.9
    """Of the bound that the choice has to reach, one-sided."""


@dataclass(frozen=True)
class Verdict:
    """What became of a setting."""

    text: str
    round: int
    """The round of the search that it fell in; 0 for a setting that went on to be tested, or was never tried."""
    open: bool = False
    """Whether it may still be chosen."""


@dataclass
class Choice:
    """What was found."""

    setting: int | None
    """None: nothing smaller than all tokens keeps enough."""
    certain: bool
    """Whether its lower bound reaches what was asked for."""
    retained: Retained | None
    """Of the chosen setting, on the items that the search has not seen."""
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    tested: dict[int, Retained] = field(default_factory=dict)
    """By setting, in the order of the tests; on the items that the search has not seen."""
    rounds: list[tuple[int, int, int]] = field(default_factory=list)
    """Of the search: items so far, settings measured, settings left."""
    search_items: int = 0
    test_items: int = 0
    out_of_time: bool = False


def split(items: int) -> tuple[list[list[int]], list[int]]:
    """Items of each round of the search, each as many as all before it, and the items to test on.

    Items must be in random order. Of 128 the search gets 4, 4, 8 and 16, and testing 96.
    """
    search = max(1, round(items * SEARCH_ITEMS))
    size = max(1, round(search * FIRST_SLICE))
    ends = [0]
    while ends[-1] < search:
        ends.append(min(search, 2 * ends[-1] or size))
    slices = [list(range(start, end)) for start, end in pairwise(ends)]
    return slices, list(range(search, items))


def choose(trials: Trials, chains: Sequence[Sequence[int]], items: int, rules: Rules) -> tuple[Choice, Board]:
    """Search, then test.

    Args:
        trials: measures settings on items, both by number from 0.
        chains: settings of one method, from the most tokens to the fewest, for each method.
        items: how many there are, at least 2, in random order.
    """
    slices, held_out = split(items)
    board = Board(trials, sum(map(len, chains)), items)
    choice = Choice(None, False, None)
    _search(board, chains, slices, rules, choice)
    _test(board, held_out, rules, choice)
    return choice, board


def _search(
    board: Board, chains: Sequence[Sequence[int]], slices: Sequence[Sequence[int]], rules: Rules, choice: Choice
) -> None:
    settings = [setting for chain in chains for setting in chain]
    for number, items in enumerate(slices, 1):
        alive = [s for s in settings if s not in choice.verdicts]
        if number == 1:
            measured = _first_round(board, chains, items, rules, choice)
        elif board.affords(len(alive), items, SEARCH_TIME):
            board.measure(alive, items)
            measured = len(alive)
        else:
            choice.out_of_time = True
            break
        choice.search_items += len(items)
        _drop(board, chains, rules, choice, number)
        _halve(board, rules, choice, number, math.ceil(len(settings) / 2**number))
        left = sum(s not in choice.verdicts for s in settings)
        choice.rounds.append((choice.search_items, measured, left))


def _first_round(
    board: Board, chains: Sequence[Sequence[int]], items: Sequence[int], rules: Rules, choice: Choice
) -> int:
    """Each method from its largest budget down, and no further once one is lost: less will not bring answers back."""
    going, measured = list(chains), 0
    for depth in range(max(map(len, chains))):
        going = [chain for chain in going if depth < len(chain)]
        batch = [chain[depth] for chain in going]
        if not board.affords(len(batch), items, SEARCH_TIME):
            choice.out_of_time = True
            choice.verdicts |= {s: Verdict("not tried: no time", 0) for chain in going for s in chain[depth:]}
            break
        board.measure(batch, items)
        measured += len(batch)
        for chain in list(going):
            if _is_lost(board, chain[depth], rules):
                going.remove(chain)
                choice.verdicts |= {s: Verdict("not tried: more of it is lost", 0) for s in chain[depth + 1 :]}
    return measured


def _is_lost(board: Board, setting: int, rules: Rules) -> bool:
    return setting in board.impossible or board.estimate(setting, DROP_CONFIDENCE).high < rules.retain


def _drop(board: Board, chains: Sequence[Sequence[int]], rules: Rules, choice: Choice, number: int) -> None:
    """Settings that surely keep too little, that are no other than a larger one, or that are dominated."""
    for chain in chains:
        lost_before = False
        for place, setting in enumerate(chain):
            if setting in choice.verdicts:
                continue
            if setting in board.impossible:
                choice.verdicts[setting] = Verdict("cannot be met", number)
            elif lost_before or _is_lost(board, setting, rules):
                choice.verdicts[setting] = Verdict("loses answers", number)
                lost_before = True
            elif place and _same(board, chain[place - 1], setting):
                choice.verdicts[setting] = Verdict("keeps what a larger one keeps", number)
    alive = [s for chain in chains for s in chain if s not in choice.verdicts]
    for setting in alive:
        if any(_dominates(board, other, setting) for other in alive if other != setting):
            choice.verdicts[setting] = Verdict("dominated", number)


def _same(board: Board, one: int, other: int) -> bool:
    common = board.common(one, other)
    return bool(len(common)) and bool((board.kept[one, common] == board.kept[other, common]).all())


def _dominates(board: Board, one: int, other: int) -> bool:
    """No more tokens and surely fewer lost answers."""
    common = board.common(one, other)
    fewer = board.kept[one, common].sum() <= board.kept[other, common].sum()
    return bool(fewer) and surely_better(board.lost[one, common], board.lost[other, common], DROP_CONFIDENCE)


def _halve(board: Board, rules: Rules, choice: Choice, number: int, room: int) -> None:
    """Set aside all but the most promising: those that keep enough, fewest tokens first, then the nearest to it."""
    alive = [s for s in range(len(board.kept)) if s not in choice.verdicts]

    def promise(setting: int) -> tuple[float, float]:
        short = max(0.0, rules.retain - board.estimate(setting, DROP_CONFIDENCE).share)
        return short, board.share(setting)

    for setting in sorted(alive, key=promise)[max(STEPS, room) :]:
        choice.verdicts[setting] = Verdict("set aside", number, open=True)


def _test(board: Board, items: Sequence[int], rules: Rules, choice: Choice) -> None:
    ladder = _ladder(board, rules, choice)
    items = _that_fit(board, items)
    choice.test_items = len(items)
    if not ladder or not items:
        return
    sequence = _thinned(board, ladder[:STEPS], items, choice)
    plausible: int | None = None
    for setting in reversed(sequence):
        if choice.tested and not board.affords(1, items):
            choice.out_of_time = True
            break
        result = _tested(board, setting, items, rules, choice)
        if result.low >= rules.retain:
            choice.setting, choice.certain = setting, True
        elif choice.certain or not result.share >= rules.retain:
            break
        else:
            plausible = setting
    if choice.setting is None:
        larger = ladder[ladder.index(sequence[-1]) + 1 :] if plausible is None else []
        choice.setting = _larger(board, larger, items, rules, choice) if plausible is None else plausible
    if choice.setting is not None:
        choice.retained = choice.tested[choice.setting]


def _ladder(board: Board, rules: Rules, choice: Choice) -> list[int]:
    """Settings that may be chosen, fewest tokens first; of those with about as many tokens the one that lost least."""
    may = [
        s
        for s in range(len(board.kept))
        if board.seen[s].any() and (s not in choice.verdicts or choice.verdicts[s].open)
    ]
    share = {s: board.estimate(s, DROP_CONFIDENCE).share for s in may}
    enough = [s for s in may if share[s] >= rules.retain] or sorted(may, key=lambda s: -share[s])[:2]
    ladder: list[int] = []
    for setting in sorted(enough, key=board.share):
        if ladder and board.share(setting) < SPACING * board.share(ladder[-1]):
            if share[setting] > share[ladder[-1]]:
                ladder[-1] = setting
        elif all(share[setting] >= share[smaller] for smaller in ladder):
            ladder.append(setting)
    return ladder


def _that_fit(board: Board, items: Sequence[int]) -> Sequence[int]:
    """As many items as there is time to test one setting on."""
    while items and not board.affords(1, items):
        items = items[: len(items) * 9 // 10]
    return items


def _thinned(board: Board, ladder: list[int], items: Sequence[int], choice: Choice) -> list[int]:
    """The sequence, fewest tokens first: with less time fewer steps, evenly from those that there are."""
    steps = len(ladder)
    while steps > 1 and not board.affords(steps, items):
        steps -= 1
    choice.out_of_time |= steps < len(ladder)
    return [ladder[(2 * step + 1) * len(ladder) // (2 * steps)] for step in range(steps)]


def _larger(board: Board, ladder: Sequence[int], items: Sequence[int], rules: Rules, choice: Choice) -> int | None:
    """The smallest of these that keeps enough as far as is seen."""
    for setting in ladder:
        if not board.affords(1, items):
            choice.out_of_time = True
            return None
        if _tested(board, setting, items, rules, choice).share >= rules.retain:
            return setting
    return None


def _tested(board: Board, setting: int, items: Sequence[int], rules: Rules, choice: Choice) -> Retained:
    board.measure([setting], items)
    choice.tested[setting] = board.estimate(setting, rules.confidence, items)
    return choice.tested[setting]
