"""What the writer of a part does at its end: the last of all parts marks the cache as complete."""

from __future__ import annotations

from collections.abc import Sequence

from tokcli.cache.layout import list_shards
from tokcli.cache.manifest import Manifest
from tokcli.cache.records import clean_text
from tokcli.cache.state import counts_of, load_state
from tokcli.cache.success import write_success
from tokcli.cache.unlocked import AnyPartLock
from tokcli.storage import Location


def finish_part(cache: Location, manifest: Manifest, lock: AnyPartLock, expected: Sequence[str]) -> list[str]:
    """Give the part back; write ``_SUCCESS`` where no other part is at work and all expected ids are there.

    Returns those that are not. Others that are at work see to the mark when they end, by the same look.
    """
    try:
        # Before the gate, which keeps others waiting: what is committed until then is seldom more at the end of it.
        shards = list_shards(cache)
        state, _ = load_state(cache, manifest)
        if lock.leave():
            if list_shards(cache) != shards:
                state, _ = load_state(cache, manifest)
            if all(clean_text(item_id) in state for item_id in expected):
                write_success(cache, counts_of(state))
        return [item_id for item_id in expected if clean_text(item_id) not in state]
    finally:
        lock.release()
