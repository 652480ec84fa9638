"""How sure one can be of the share of answers that a setting keeps, from a few answers about a few items.

An exact binomial bound (Clopper and Pearson, 1934) of as many answers as the ones that were counted are worth: answers
about one item go wrong together, so they are worth less than as many about different items (Korn and Graubard, 1998).
A bootstrap would not do: where nothing was lost it is sure of everything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
CAUTION = 5.0
"""Lost answers."""
_HALVINGS = 40
_TERMS = 300


@dataclass(frozen=True)
class Retained:
    """The share of answers kept, of those that count."""

    asked: int
    lost: int
    worth: float
    """What each answer counts for: so many answers about different items."""
    confidence: float

    @property
    def share(self) -> float:
        """NaN where no answer counts."""
        return 1 - self.lost / self.asked if self.asked else math.nan

    @cached_property
    def low(self) -> float:
        """One-sided bound: the true share is above it with the confidence that was asked for."""
        right = (self.asked - self.lost) * self.worth
        return beta_quantile(1 - self.confidence, right, self.lost * self.worth + 1) if right else 0.0

    @cached_property
    def high(self) -> float:
        """One-sided bound: the true share is below it with that confidence."""
        right = (self.asked - self.lost) * self.worth
        return beta_quantile(self.confidence, right + 1, self.lost * self.worth) if self.lost else 1.0


def retained(asked: Floats, lost: Floats, likeness: float, confidence: float, times: float = 1.0) -> Retained:
    """From answers asked and lost about each item, float64 (I,) each; ``times`` as many items of the same kind.

    ``likeness`` is how alike answers about one item fare, see :func:`intraclass`. With m answers about every item,
    each counts as ``1 / (1 + (m - 1) * likeness)`` answers; where m differs, its mean over answers is taken.
    """
    worth = times / design_effect(asked, likeness) if asked.any() else times
    return Retained(round(float(asked.sum())), round(float(lost.sum())), worth, confidence)


def design_effect(asked: Floats, likeness: float) -> float:
    """By what factor the variance is that of as many answers about different items; at least 1."""
    return 1 + (float((asked**2).sum() / asked.sum()) - 1) * likeness


def intraclass(asked: Floats, lost: Floats, caution: float = CAUTION) -> float:
    """The intraclass correlation of losses, 0 to 1, pooled over settings: float64 (S, I) each.

    Over all pairs of answers about one item, the mean product of what they differ from their setting's mean, over the
    variance of single answers. Few losses say little about it, so it is taken as if there had been ``caution`` more,
    each along with all other answers about its item: where nothing was lost it is 1.
    """
    pairs = scale = 0.0
    for own_asked, own_lost in zip(asked, lost):
        if not own_lost.any():
            continue
        mean = own_lost.sum() / own_asked.sum()
        sums = (own_lost - own_asked * mean) ** 2
        singles = own_lost * (1 - mean) ** 2 + (own_asked - own_lost) * mean**2
        pairs += float((sums - singles).sum())
        scale += float(mean * (1 - mean) * (own_asked * (own_asked - 1)).sum())
    if asked.any():
        # Each lost answer adds about as much to the scale as there are others about its item.
        added = caution * float((asked * (asked - 1)).sum() / asked.sum())
        pairs, scale = pairs + added, scale + added
    return min(1.0, max(0.0, pairs / scale)) if scale else 1.0


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Where the distribution function of Beta(a, b) reaches ``probability``, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if beta_distribution(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def beta_distribution(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), to about 1e-12, for positive a and b."""
    if not 0 < x < 1:
        return float(x >= 1)
    # On its own side of the mean the continued fraction converges fast.
    return 1 - _tail(1 - x, b, a) if x > (a + 1) / (a + b + 2) else _tail(x, a, b)


def _tail(x: float, a: float, b: float) -> float:
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) * _continued_fraction(x, a, b) / a


def _continued_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of I_x(a, b) (DLMF 8.17.22), by Lentz' method."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = value
        for term in (even, odd):
            d = 1 / (1 + term * d)
            c = 1 + term / c
            value *= c * d
        if abs(value - before) <= 1e-15 * abs(value):
            break
    return value
