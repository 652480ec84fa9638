"""Totals over a cache's table of items."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def summarize(items: pa.Table, *, failed: int, cache_bytes: int) -> dict[str, Any]:
    """What ``Cache.stats`` gives; every value is a JSON number or a mapping of them."""
    kinds = sorted(set(items["kind"].to_pylist()))
    return {
        **_totals(items),
        "failed": failed,
        "cache_bytes": cache_bytes,
        "kinds": {kind: _totals(items.filter(pc.equal(items["kind"], kind))) for kind in kinds},
    }


def _totals(items: pa.Table) -> dict[str, Any]:
    def total(name: str) -> Any:
        return pc.sum(items[name]).as_py() or 0

    return {
        "items": len(items),
        "kept_tokens": total("kept_tokens"),
        "source_tokens": total("source_tokens"),
        "source_bytes": total("source_bytes"),
        "media_seconds": float(total("duration_seconds")),
    }
