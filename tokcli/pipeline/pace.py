"""What an item costs beside its bytes, from what a run has done so far."""

from __future__ import annotations

from math import sqrt

MIN_ITEMS = 10
CLEAR = 2.0
"""Standard errors that an item's own cost must be above zero: items go largest first, so that what is done says little
of small ones at first, and what is taken for their cost counts once for each of them."""


class Pace:
    """Seconds as ``item_cost`` for each item and ``byte_cost`` for each byte, neither below zero.

    Least squares over the times from one finished item to the next, which vary the more the larger the item: squares
    are weighed by 1 / (bytes + typical bytes). Until ``item_cost`` is clear of zero, bytes are all that counts.
    """

    def __init__(self, typical_bytes: float) -> None:
        """``typical_bytes``, above 0, keeps empty files from outweighing all others."""
        self._typical = typical_bytes
        self._items = 0
        self._bytes = self._seconds = 0.0
        # Weighted sums: of 1, bytes, bytes squared, seconds, bytes * seconds, seconds squared.
        self._w = self._b = self._bb = self._s = self._bs = self._ss = 0.0

    def add(self, num_bytes: int, seconds: float) -> None:
        """Note an item that finished ``seconds`` after the one before."""
        weight = 1 / (num_bytes + self._typical)
        self._items += 1
        self._bytes += num_bytes
        self._seconds += seconds
        self._w += weight
        self._b += weight * num_bytes
        self._bb += weight * num_bytes**2
        self._s += weight * seconds
        self._bs += weight * num_bytes * seconds
        self._ss += weight * seconds**2

    def work(self, items: int, num_bytes: int) -> float:
        """What so many items of so many bytes together cost; only ratios of two such numbers mean anything."""
        item_cost, byte_cost = self._costs()
        return item_cost * items + byte_cost * num_bytes

    def _costs(self) -> tuple[float, float]:
        if not self._bytes:
            return 1.0, 0.0
        by_bytes = 0.0, self._seconds / self._bytes or 1.0
        if self._items < MIN_ITEMS:
            return by_bytes
        mean_bytes, mean_seconds = self._b / self._w, self._s / self._w
        scatter = self._bb - self._b * mean_bytes
        if scatter <= 1e-9 * self._bb:  # all of one size
            return by_bytes
        slope = (self._bs - self._b * mean_seconds) / scatter
        item_cost = mean_seconds - slope * mean_bytes
        residual = max(0.0, self._ss - item_cost * self._s - slope * self._bs)
        error = sqrt(residual / (self._items - 2) * (1 / self._w + mean_bytes**2 / scatter))
        if item_cost <= CLEAR * error:
            return by_bytes
        item_cost = min(item_cost, self._seconds / self._items)
        return item_cost, (self._seconds - item_cost * self._items) / self._bytes
