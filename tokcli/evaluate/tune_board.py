"""What was measured while a setting was searched for: kept tokens and lost answers, by setting and item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tokcli.evaluate.tune_bounds import Floats, Retained, intraclass, retained

REFERENCE_COST = 1.5
"""What asking of all tokens costs for an item that is new, in outcomes of one setting."""


@dataclass(frozen=True)
class Cells:
    """Settings times items, float64 (s, i) each."""

    kept: Floats
    """Tokens; NaN where the setting cannot be met."""
    source: Floats
    asked: Floats
    """Answers that count."""
    lost: Floats


class Trials(Protocol):
    """Where measurements come from."""

    allowed: float
    """Seconds that all of them may take; infinity for no limit."""
    spent: float
    """Seconds that they have taken."""

    def run(self, settings: Sequence[int], items: Sequence[int]) -> Cells: ...


class Board:
    """All measurements so far; asks for more."""

    def __init__(self, trials: Trials, settings: int, items: int) -> None:
        self.trials = trials
        self.kept = np.zeros((settings, items))
        self.source, self.asked, self.lost = (np.zeros_like(self.kept) for _ in range(3))
        self.seen = np.zeros((settings, items), dtype=np.bool_)
        self.impossible: set[int] = set()
        """Settings that some item could not meet."""

    def measure(self, settings: Sequence[int], items: Sequence[int]) -> None:
        if not len(settings) or not len(items):
            return
        cells = self.trials.run(settings, items)
        where = np.ix_(settings, items)
        self.impossible |= {setting for setting, row in zip(settings, cells.kept) if np.isnan(row).any()}
        self.kept[where], self.source[where] = np.nan_to_num(cells.kept), cells.source
        self.asked[where], self.lost[where] = cells.asked, cells.lost
        self.seen[where] = True

    def seconds(self, settings: int, items: Sequence[int]) -> float:
        """What measuring will take, judged by what was measured; 0 before anything was."""
        touched = set(np.flatnonzero(self.seen.any(axis=0)).tolist())
        done = float(self.seen.sum()) + REFERENCE_COST * len(touched)
        rate = self.trials.spent / done if done else 0.0
        return rate * (settings * len(items) + REFERENCE_COST * len(set(items) - touched))

    def affords(self, settings: int, items: Sequence[int], part: float = 1.0) -> bool:
        """Whether it fits into that part of the time."""
        return self.trials.spent + self.seconds(settings, items) <= part * self.trials.allowed

    @property
    def likeness(self) -> float:
        """How alike answers about one item fare, over everything measured."""
        return intraclass(self.asked, self.lost)

    def estimate(self, setting: int, confidence: float, items: Sequence[int] | None = None) -> Retained:
        """What the setting retains, over the items given or all that it was measured on.

        Answers about one item are taken to be as alike as those of all settings, or as this one's own if that is more.
        """
        chosen = slice(None) if items is None else list(items)
        asked, lost = self.asked[setting, chosen], self.lost[setting, chosen]
        own = intraclass(asked[None], lost[None], caution=0.0) if lost.any() else 0.0
        return retained(asked, lost, max(self.likeness, own), confidence)

    def share(self, setting: int) -> float:
        """Tokens kept of all tokens, over the items that it was measured on; NaN for none."""
        source = float(self.source[setting].sum())
        return float(self.kept[setting].sum()) / source if source else float("nan")
