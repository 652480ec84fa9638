"""``_SUCCESS``: the mark of a run that reached its end, with the counts that the shards must agree with."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tokcli.cache.atomic import write_atomically
from tokcli.cache.layout import SUCCESS
from tokcli.cache.manifest import canonical_json
from tokcli.storage import Location


def write_success(cache: Location, counts: Mapping[str, int]) -> None:
    """Write the mark atomically; ``counts`` are ``items`` and ``failed`` of the whole cache."""
    write_atomically(cache / SUCCESS, (canonical_json(dict(counts)) + "\n").encode(), "success")


def read_success(cache: Location) -> dict[str, int] | None:
    """The counts in the mark; None where there is none. Raises ``ValueError`` where it holds something else."""
    try:
        told = json.loads((cache / SUCCESS).read_bytes())
    except FileNotFoundError:
        return None
    if not isinstance(told, dict) or not all(isinstance(told.get(key), int) for key in ("items", "failed")):
        raise ValueError(f"{SUCCESS} does not hold the counts of items and failures")
    return told
