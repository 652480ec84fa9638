"""The loop of a local run over items that come a few at a time, into a part of every cache."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tokcli.cache.folder import check_configuration
from tokcli.cache.part import Stripe
from tokcli.errors import UsageError
from tokcli.pipeline.compress import Run
from tokcli.pipeline.decoder import Event
from tokcli.pipeline.decoder_pool import DecoderPool
from tokcli.pipeline.ledger import Ledger
from tokcli.pipeline.messages import Failed, Finished
from tokcli.pipeline.preflight import Job
from tokcli.pipeline.progress import Progress
from tokcli.pipeline.ray.messages import Order, Outcome, Remark, Report
from tokcli.pipeline.targets import Output, Target
from tokcli.storage import is_url
from tokcli.types import EncodedItem


class PartRun(Run):
    """A run that is fed; a context manager. Leaving it commits what is whole."""

    def __init__(self, job: Job, pool: DecoderPool, index: int, count: int) -> None:
        self._stack = ExitStack()
        self.remarks = Remarks()
        part = Stripe(index, count)
        try:
            outputs = [Output(target, self._stack.enter_context(target.open(part=part))) for target in job.targets]
        except BaseException:
            self._stack.close()
            raise
        super().__init__(job, outputs, pool, self.remarks)
        self.outputs = outputs
        self.ledger: PartLedger = PartLedger(job, outputs, self.progress, self.remarks)
        self._in_hand: dict[str, Order] = {}
        self._uncommitted: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        finally:
            self._stack.close()

    def take(self, orders: Iterable[Order]) -> None:
        """Take more to do; it is done in this sequence."""
        for order in orders:
            self._in_hand[order.item.id] = order
            self.ledger.due[order.item.id] = {self.outputs[number].target: self.outputs[number] for number in order.due}
            self.fetcher.add([order.item])

    @property
    def has_news(self) -> bool:
        """Whether an item is done with that has not been reported."""
        return any(not self.ledger.due[item_id] for item_id in self._in_hand)

    def commit(self) -> None:
        for output in self.outputs:
            output.writer.commit()

    def report(self, error: Exception | None) -> Report:
        """What happened since the last one."""
        finished = [item_id for item_id in self._in_hand if not self.ledger.due[item_id]]
        outcomes = tuple(self.ledger.outcome(self._in_hand.pop(item_id)) for item_id in finished)
        self._uncommitted.update(finished)
        committed = tuple(
            item_id
            for item_id in self._uncommitted
            if all(output.writer.is_committed(item_id) for output in self.outputs)
        )
        self._uncommitted.difference_update(committed)
        return Report(outcomes, committed, self.remarks.told(), tuple(self.progress.current), error)


class PartLedger(Ledger):
    """Keeps what became of each item until it is told to the driver, which alone knows the whole run."""

    def __init__(self, job: Job, outputs: Sequence[Output], progress: Progress, observer: Remarks) -> None:
        # How large the share of failures is cannot be told from some of the items.
        super().__init__(job.recipe.model_copy(update={"max_error_rate": None}), outputs, progress, observer)
        self._numbers = {output.target: number for number, output in enumerate(outputs)}
        self._failures: dict[str, list[int]] = {}
        self._items: dict[str, tuple[int, float, int, int]] = {}

    def fail(self, event: Event, targets: Sequence[Target], failed: Failed) -> None:
        self._failures.setdefault(event.item.id, []).extend(self._numbers[target] for target in targets)
        super().fail(event, targets, failed)

    def done(self, item: EncodedItem, finished: Finished) -> None:
        super().done(item, finished)
        self._items[item.id] = (item.source_bytes, item.duration_seconds, item.source_tokens, len(item.kept))

    def outcome(self, order: Order) -> Outcome:
        """What became of an item that is not due any more."""
        item_id = order.item.id
        failed = self._failures.pop(item_id, [])
        done = tuple(number for number in order.due if number not in failed)
        return Outcome(item_id, done, tuple(failed), *self._items.pop(item_id, ()))


class Remarks:
    """The observer of a part's run: keeps what is to be shown until the driver asks."""

    def __init__(self) -> None:
        self._kept: list[Remark] = []

    def begin(self, progress: Progress, notes: list[str]) -> None:
        pass

    def update(self, progress: Progress) -> None:
        pass

    def failure(self, item_id: str, stage: str, message: str) -> None:
        self._kept.append(Remark("failure", item_id, stage, message))

    def warning(self, item_id: str, message: str) -> None:
        self._kept.append(Remark("warning", item_id, "", message))

    def told(self) -> tuple[Remark, ...]:
        kept, self._kept = tuple(self._kept), []
        return kept


def check_shared(targets: Sequence[Target], samples: Sequence[str]) -> None:
    """Raise ``UsageError`` where this node does not see the caches, or none of these inputs."""
    host = socket.gethostname()
    for target in targets:
        if check_configuration(target.folder, target.manifest) is None:
            raise UsageError(
                f"node {host} does not see the cache {target.folder} that the driver made; name a folder that all "
                "nodes share, under the same path"
            )
    files = [path for path in samples if not is_url(path)]
    if files and not any(os.path.lexists(path) for path in files):
        raise UsageError(
            f"node {host} sees none of the inputs, such as {files[0]}; they must lie in a folder that all nodes share, "
            "under the same path"
        )
