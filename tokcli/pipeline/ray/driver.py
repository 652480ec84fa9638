"""`tokcli compress --executor ray`: the driver, which hands out items and never sees a frame. Read ``Driver.run``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import tokcli
from tokcli.errors import UsageError
from tokcli.pipeline.decoder import Event
from tokcli.pipeline.ledger import GivenUpError
from tokcli.pipeline.messages import Failed
from tokcli.pipeline.preflight import Request, check_request
from tokcli.pipeline.progress import CompressSummary, Observer, Progress, Silent
from tokcli.pipeline.ray.cluster import Cluster
from tokcli.pipeline.ray.dispatch import MAX_DEATHS, Dispatcher
from tokcli.pipeline.ray.fleet import Death, Fleet, Slot
from tokcli.pipeline.ray.ledger import LateOutput, RunLedger
from tokcli.pipeline.ray.messages import Loaded, Order, Report, Setup
from tokcli.pipeline.ray.sizes import plan_sizes
from tokcli.pipeline.targets import Target, check_targets, finish, notes_of, summarize
from tokcli.recipe import CompressRecipe
from tokcli.storage import location

POLL_SECONDS = 0.5
SAMPLES = 16
"""Inputs that a node is asked for, whether it sees any of them."""
# When actors die one after the other and nothing gets done, it is not the items' fault.
MAX_DEATHS_IN_A_ROW = 10


def compress_on_ray(recipe: CompressRecipe, observer: Observer | None = None) -> CompressSummary:
    """What ``compress`` does, on the nodes of a Ray cluster; raises what it raises.

    Actors decode, encode and commit shards of their own into the caches, which lie in folders that all nodes share.
    What an actor or a node that is lost had not committed, others do again. Raises ``UsageError`` besides where there
    is no Ray or no cluster, and where nodes see other files than the driver.
    """
    request = check_request(recipe)
    with Cluster(recipe.ray_address) as cluster:
        return Driver(request, fleet_for(request, cluster), observer or Silent()).run()


def fleet_for(request: Request, cluster: Cluster) -> Fleet:
    """The actors that a run is to have, for their number and size; they start when they are first asked for.

    Raises ``UsageError`` where no node can hold one.
    """
    recipe = request.recipe
    sizes = plan_sizes(cluster.nodes(), recipe, len(request.scan.items))
    setup = Setup(recipe, str(Path.cwd()), tokcli.__version__, recipe.workers or sizes.cpus, sizes.cpus)
    return Fleet(cluster, setup, sizes)


class Driver:
    """One run: what the caches miss is handed out until it is committed."""

    def __init__(self, request: Request, fleet: Fleet, observer: Observer) -> None:
        self.request, self.recipe, self.scan = request, request.recipe, request.scan
        self.fleet, self.observer = fleet, observer
        self.progress = Progress(items=len(self.scan.items) + len(self.scan.failures))
        self.outputs: list[LateOutput] = []
        self._current: dict[int, tuple[str, ...]] = {}
        self._asked: dict[int, float] = {}
        self._deaths_in_a_row = 0
        self.work_began: float | None = None
        self.work_ended: float | None = None
        """Monotonic seconds of the first order and of the last commit; what comes before is starting up."""

    def run(self) -> CompressSummary:
        """Bring every input into the caches. Whatever ends it early, what is whole is committed."""
        try:
            self._prepare(self._first_loaded())
            while not self.dispatcher.finished:
                self._turn()
            self.work_ended = time.monotonic()
        finally:
            self.fleet.close()
            if any(output.late for output in self.outputs):
                with ExitStack() as stack:
                    for output in self.outputs:
                        output.open_again(stack)
        with ExitStack() as stack:
            for output in self.outputs:
                output.open_again(stack)
            finish(self.outputs, self.recipe, self.scan)
        return summarize(
            self.outputs, self.progress.items, [item.id for item in self.scan.items], self.progress.seconds
        )

    def _first_loaded(self) -> Loaded:
        """What the first actor that is there would make: the driver loads no tower of its own."""
        while True:
            self.observer.update(self.progress)
            self.fleet.start_due()
            for slot, answer in self.fleet.answers(POLL_SECONDS):
                if isinstance(answer, Loaded):
                    return answer
                if isinstance(answer, Death):
                    self._tell(slot, answer)

    def _prepare(self, loaded: Loaded) -> None:
        """Make the caches, or look at what they have, and plan what they miss: longest first."""
        wanted = ((location(self.recipe.output), self.request.compressor), *self.request.also)
        targets = [Target(*both, *made) for both, made in zip(wanted, zip(loaded.manifests, loaded.codebooks))]
        check_targets(targets, self.recipe.overwrite)
        with ExitStack() as stack:
            for target in targets:
                self.outputs.append(LateOutput(target, stack.enter_context(target.open(self.recipe.overwrite))))
            self.ledger = RunLedger(self.recipe, self.outputs, self.progress, self.observer)
            pending = sorted(self.ledger.pending(self.scan), key=lambda item: -item.size_bytes)
        # Closed: from here on actors write, and what they commit has higher numbers than what is there.
        for output in self.outputs:
            output.note_last_shard()
        self._numbers = {output.target: number for number, output in enumerate(self.outputs)}
        orders = [Order(item, tuple(self._numbers[target] for target in self.ledger.due[item.id])) for item in pending]
        self._samples = [item.path for item in pending[:SAMPLES]]
        self.dispatcher = Dispatcher(orders, self.fleet.setup.decoders)
        self.progress.expect([item.size_bytes for item in pending])
        self.observer.begin(
            self.progress, [*notes_of(self.outputs, self.scan, self.recipe.prune), f"on Ray: {self.fleet.describe()}"]
        )

    def _turn(self) -> None:
        """Give everybody work, and take what has come."""
        self.fleet.start_due()
        for slot in self.fleet.slots:
            if slot.state == "loaded":
                self.fleet.open(slot, self._samples)
            elif slot.state == "working" and slot.call is None:
                self._ask(slot)
        for slot, answer in self.fleet.answers(POLL_SECONDS):
            if isinstance(answer, Loaded):
                self._check_same(slot, answer)
            elif isinstance(answer, Death):
                self._lose(slot, answer)
            else:
                self._take(slot, answer)
        self.progress.current = [item_id for ids in self._current.values() for item_id in ids]
        self.observer.update(self.progress)

    def _ask(self, slot: Slot) -> None:
        """Let an actor work for a moment, unless there is nothing for it to do."""
        orders = self.dispatcher.next_for(slot.index, len(self.fleet.slots))
        hand = self.dispatcher.hand(slot.index)
        if not (hand.in_work or hand.uncommitted):
            return
        self._asked[slot.index] = time.monotonic()
        self.work_began = self.work_began or self._asked[slot.index]
        last = hand.alone or not self.dispatcher.left
        slot.call = slot.actor.step.remote(orders, self.dispatcher.low(slot.index), last)

    def _take(self, slot: Slot, report: Report) -> None:
        hand = self.dispatcher.hand(slot.index)
        for outcome in report.finished:
            self.ledger.note(hand.in_work[outcome.item_id].item, outcome)
            self._deaths_in_a_row = 0
        self.dispatcher.finish(slot.index, report.finished, time.monotonic() - self._asked[slot.index])
        self.dispatcher.commit(slot.index, report.committed)
        self._current[slot.index] = report.current
        for remark in report.remarks:
            if remark.kind == "failure":
                self.observer.failure(remark.item_id, remark.stage, remark.message)
            else:
                self.observer.warning(remark.item_id, remark.message)
        if report.error is not None:
            raise report.error
        failures = [remark.message for remark in report.remarks if remark.kind == "failure"]
        if failures:
            self.ledger.check_rate(failures[-1])

    def _lose(self, slot: Slot, death: Death) -> None:
        """Take back what was lost with an actor; an item that no actor survives gets an error."""
        self._current.pop(slot.index, None)
        missing = self._missing(slot)
        self._tell(slot, death, len(missing))
        for order in self.dispatcher.died(slot.index, missing, death.node_too):
            message = (
                f"{MAX_DEATHS} actors died while they worked on it, the last with nothing else in work: {death.reason}"
            )
            failed = Failed("encode", "ActorDied", message)
            event = Event(order.item, MAX_DEATHS, failed, None, lambda: None)
            self.ledger.fail(event, [self.outputs[number].target for number in order.due], failed)
            self._deaths_in_a_row = 0
        self._deaths_in_a_row += death.state == "working" and not death.node_too
        if self._deaths_in_a_row >= MAX_DEATHS_IN_A_ROW:
            raise GivenUpError(
                f"{self._deaths_in_a_row} actors died in a row and nothing got done between; the last: {death.reason}. "
                "Look at the memory of the nodes; the same command goes on from here"
            )

    def _missing(self, slot: Slot) -> Mapping[str, Order]:
        """What a dead actor had and has not committed, and counts put right: what it committed and did not tell."""
        orders, missing = self.dispatcher.had(slot.index), {}
        if not orders:
            return {}
        states = [output.written() for output in self.outputs]
        told = {item_id: outcome for item_id, (_, outcome) in self.dispatcher.hand(slot.index).uncommitted.items()}
        for order in orders:
            item = order.item
            outcome = self.ledger.committed(order, states)
            left = tuple(number for number in order.due if number not in (*outcome.done, *outcome.failed))
            if left or item.id not in told:
                if item.id in told:
                    self.ledger.take_back(item, told[item.id])
                self.ledger.note(item, outcome, whole=not left)
            if left:
                missing[item.id] = Order(item, left)
        return missing

    def _tell(self, slot: Slot, death: Death, items: int = 0) -> None:
        again = f"; {items} items that it had not committed are done again" if items else ""
        self.observer.warning(self.recipe.output, f"{death.where} is gone ({death.reason}){again}")

    def _check_same(self, slot: Slot, loaded: Loaded) -> None:
        for output, manifest in zip(self.outputs, loaded.manifests):
            if differences := output.target.manifest.differences(manifest):
                raise UsageError(
                    f"{slot.where} would make another cache than the first that was there: {'; '.join(differences)}. "
                    "Say it, as with --dtype bfloat16 or --device cpu, so that all nodes do the same"
                )
