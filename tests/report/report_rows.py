"""Rows as `tokcli eval` writes them, made up: accuracy falls with the budget, faster for some kinds."""

from __future__ import annotations

import math
from typing import Any

KEEPS = (1.0, 0.5, 0.25, 0.1, 0.05)
KINDS = ("change", "colour", "compare", "count", "motion", "needle", "order", "place", "read", "shape", "time")
CHANCE = 0.27


def make_row(method: str, keep: float | None, kind: str | None, accuracy: float, **changes: Any) -> dict[str, Any]:
    row = {
        "method": method,
        "keep": keep,
        "kind": kind,
        "accuracy": accuracy,
        "ci": [accuracy - 0.02, min(1.0, accuracy + 0.015)],
        "n": 2000 if kind is None else 180,
        "kept_tokens": 100_000 * (keep or 1),
        "source_tokens": 100_000,
        "cache_bytes": 4_000_000 * (keep or 1),
        "source_bytes": 2_500_000,
        "chance": CHANCE,
    }
    return row | changes


def make_rows(methods: dict[str, float], kinds: tuple[str, ...] = KINDS) -> list[dict[str, Any]]:
    """``methods``: how many points of accuracy each loses when tokens are halved."""
    rows = []
    for kind in (None, *kinds):
        hard = 1.0 if kind is None else 0.4 + 0.12 * kinds.index(kind)
        full = 0.965 if kind is None else 0.9 + 0.008 * kinds.index(kind)
        rows.append(make_row("full", None, kind, full))
        rows.append(make_row("blind", None, kind, CHANCE + 0.03, kept_tokens=0, cache_bytes=0))
        rows.append(make_row("guess", None, kind, CHANCE + 0.01, kept_tokens=0, cache_bytes=0))
        for method, loss in methods.items():
            for keep in KEEPS:
                lost = loss * hard * math.log2(1 / keep) ** 1.5
                rows.append(make_row(method, keep, kind, max(CHANCE, full - lost)))
    return rows
