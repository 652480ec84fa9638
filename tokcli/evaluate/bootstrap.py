"""Means over questions, with confidence intervals from resampled clips."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LEVEL = 0.95
_DRAWS_AT_A_TIME = 1 << 22


@dataclass(frozen=True)
class Means:
    """One mean per setting."""

    mean: Floats
    """float64 (S,); NaN where there is no question."""
    interval: Floats
    """float64 (S, 2): the ends of the 95% interval."""
    difference: Floats | None
    """float64 (S,): to the reference; None without one."""
    difference_interval: Floats | None
    """float64 (S, 2): paired, both sides from the same clips."""


def bootstrap_means(
    sums: Floats, counts: Floats, *, reference: int | None, samples: int, seed: int, stratum: str = ""
) -> Means:
    """Mean score over questions, for every setting.

    Questions about one clip are not independent, so clips are what is resampled, with replacement, all settings on
    the same draws. Ends are the 2.5% and 97.5% quantiles of the resampled means (percentile bootstrap). Clips without
    questions are left out first.

    Args:
        sums: float64 (S, I), each setting's scores added up over the questions about each clip.
        counts: float64 (I,), questions about each clip.
        reference: the setting that the others are compared with; None for no comparison.
        samples: resamplings.
        seed: with ``stratum``, decides the draws.
    """
    asked = counts > 0
    sums, counts = sums[:, asked], counts[asked]
    clips, settings = len(counts), len(sums)
    if not clips:
        empty, pairs = np.full(settings, np.nan), np.full((settings, 2), np.nan)
        return Means(empty, pairs, None if reference is None else empty, None if reference is None else pairs)
    mean = sums.sum(axis=1) / counts.sum()
    drawn = _resampled(sums, counts, samples, np.random.default_rng([seed, zlib.crc32(stratum.encode())]))
    interval = _ends(drawn)
    if reference is None:
        return Means(mean, interval, None, None)
    differences = drawn - drawn[:, reference : reference + 1]
    return Means(mean, interval, mean - mean[reference], _ends(differences))


def _resampled(sums: Floats, counts: Floats, samples: int, generator: np.random.Generator) -> Floats:
    """float64 (samples, S): the means of each resampling."""
    clips = len(counts)
    rows = max(1, _DRAWS_AT_A_TIME // clips)
    parts = []
    for first in range(0, samples, rows):
        number = min(rows, samples - first)
        # How often each clip was drawn says as much as the draws, and makes the means a product of matrices.
        times = generator.multinomial(clips, np.full(clips, 1 / clips), size=number).astype(np.float64)
        parts.append((times @ sums.T) / (times @ counts)[:, None])
    return np.concatenate(parts)


def _ends(drawn: Floats) -> Floats:
    tail = (1 - LEVEL) / 2
    return np.quantile(drawn, [tail, 1 - tail], axis=0).T


def pareto(costs: Floats, gains: Floats) -> npt.NDArray[np.bool_]:
    """bool (n,): whom no other beats, at less or equal cost and with more or equal gain, one of them strictly.

    NaN on either side is never best.
    """
    known = ~(np.isnan(costs) | np.isnan(gains))
    cheaper = costs[None, :] <= costs[:, None]
    better = gains[None, :] >= gains[:, None]
    strictly = (costs[None, :] < costs[:, None]) | (gains[None, :] > gains[:, None])
    beaten = (cheaper & better & strictly & known[None, :]).any(axis=1)
    return known & ~beaten
