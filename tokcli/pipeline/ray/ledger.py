"""The counts of a run on Ray, from what its actors tell; the rows that only the driver can write."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from tokcli.cache import CacheWriter, ErrorRow
from tokcli.cache.layout import list_shards
from tokcli.cache.lock import CacheLockedError
from tokcli.cache.records import clean_text
from tokcli.cache.state import Known, load_state
from tokcli.pipeline.ledger import Ledger
from tokcli.pipeline.ray.messages import Order, Outcome
from tokcli.pipeline.targets import Output, Target
from tokcli.types import MediaItem

LOCK_SECONDS = 30.0
"""For actors that were ended to give their locks back."""


class LateOutput(Output):
    """A target that actors write; errors of items that no actor survives are kept until they are done."""

    def __init__(self, target: Target, writer: CacheWriter) -> None:
        super().__init__(target, writer)
        self.late: list[ErrorRow] = []
        self._first_sequence = 0

    def fail(self, row: ErrorRow) -> None:
        self.late.append(row)
        self.failed += 1

    def note_last_shard(self) -> None:
        """All shards that come from now on are this run's."""
        self._first_sequence = max((shard.sequence for shard in list_shards(self.target.folder)), default=0) + 1

    def written(self) -> Mapping[str, Known]:
        """What this run has committed, by id."""
        return load_state(self.target.folder, self.target.manifest, least=self._first_sequence)[0]

    def open_again(self, stack: ExitStack) -> None:
        """Open the writer, when no actor writes any more, and give it the errors that were kept."""
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                self.writer = stack.enter_context(self.target.open())
                break
            except CacheLockedError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
        while self.late:
            self.writer.fail(self.late.pop())


class RunLedger(Ledger):
    """Counts what actors finished; what was lost with an actor before it was committed is taken back."""

    def note(self, item: MediaItem, outcome: Outcome, whole: bool = True) -> None:
        """Count an item that is done with; where it is not ``whole``, some caches still miss it."""
        self._count(item, outcome, 1, whole)
        for number in (*outcome.done, *outcome.failed):
            self.due[item.id].pop(self.outputs[number].target, None)

    def take_back(self, item: MediaItem, outcome: Outcome) -> None:
        """Undo ``note``."""
        self._count(item, outcome, -1, True)
        for number in (*outcome.done, *outcome.failed):
            self.due[item.id][self.outputs[number].target] = self.outputs[number]

    def _count(self, item: MediaItem, outcome: Outcome, sign: int, whole: bool) -> None:
        for number in outcome.done:
            self.outputs[number].done += sign
        for number in outcome.failed:
            self.outputs[number].failed += sign
        if not whole:
            return
        progress = self.progress
        if outcome.failed:
            (self._failed.add if sign > 0 else self._failed.discard)(item.id)
            progress.failed += sign
        else:
            self._done += sign
            progress.done += sign
        (progress.finish if sign > 0 else progress.take_back)(item.size_bytes)
        progress.media_seconds += sign * outcome.media_seconds
        progress.source_tokens += sign * outcome.source_tokens
        progress.kept_tokens += sign * outcome.kept_tokens

    @staticmethod
    def committed(order: Order, states: Sequence[Mapping[str, Known]]) -> Outcome:
        """What the caches have of an order, from what this run wrote into each."""
        known = {number: states[number].get(clean_text(order.item.id)) for number in order.due}
        by_status: dict[str, list[int]] = {"done": [], "failed": []}
        for number, row in known.items():
            if row is not None:
                by_status[row.status].append(number)
        return Outcome(order.item.id, tuple(by_status["done"]), tuple(by_status["failed"]))
