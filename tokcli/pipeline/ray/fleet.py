"""The actors of a run: started, asked for one thing at a time, and started again when they die."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from tokcli.cache.lock import CacheLockedError
from tokcli.errors import TokcliError
from tokcli.pipeline.ray.cluster import ActorLostError, Cluster
from tokcli.pipeline.ray.messages import Loaded, Place, Report, Setup
from tokcli.pipeline.ray.sizes import Sizes

MAX_FAILED_STARTS = 3
START_SECONDS = 600.0
"""How long the cluster may take to find room for the first actor, or for one after all have died."""
CLOSE_SECONDS = 120.0
"""For committing what is whole, at the end or at a stop."""

State = Literal["starting", "loading", "loaded", "opening", "working", "dead", "retired"]


@dataclass
class Slot:
    """The place of an actor, which is the writer of a part; when it dies, another takes the place."""

    index: int
    state: State = "dead"
    actor: Any = None
    call: Any = None
    """The one call that is under way."""
    place: Place | None = None
    failed_starts: int = 0
    """Actors in a row that died before they could work."""
    has_worked: bool = False
    """Whether an actor was at work here before."""
    since: float = 0.0
    """Monotonic seconds of its state, or when the next one is to be started."""

    def enter(self, state: State, call: Any = None) -> None:
        self.state, self.call, self.since = state, call, time.monotonic()

    @property
    def where(self) -> str:
        return "an actor" if self.place is None else f"the actor on {self.place.host} (process {self.place.pid})"


@dataclass(frozen=True)
class Death:
    """An actor is gone."""

    reason: str
    state: State
    """What it was doing."""
    node_too: bool
    where: str


class Fleet:
    """As many slots as the run has parts."""

    def __init__(self, cluster: Cluster, setup: Setup, sizes: Sizes) -> None:
        self._cluster, self.setup, self._sizes = cluster, setup, sizes
        self.slots = [Slot(index) for index in range(sizes.actors)]
        self._last_seen = time.monotonic()
        """When an actor was seen that was there."""

    def describe(self) -> str:
        sizes, decoders = self._sizes, self.setup.decoders
        gpus = f", GPUs: {sizes.gpus:g}" if sizes.gpus > 0 else ""
        nodes = len(self._cluster.nodes())
        return f"nodes: {nodes}, actors: {sizes.actors}, for each CPUs: {sizes.cpus}{gpus}, decoders: {decoders}"

    def start_due(self) -> None:
        """Start actors in the places that are free, if it is time. Raises ``TokcliError`` where none can be had."""
        now = time.monotonic()
        for slot in self.slots:
            if slot.state == "dead" and now >= slot.since:
                slot.place = None
                slot.actor = self._cluster.actor(self.setup, self._sizes.cpus, self._sizes.gpus)
                slot.enter("starting", slot.actor.place.remote())
        if any(slot.state not in ("starting", "dead", "retired") for slot in self.slots):
            self._last_seen = now
        elif now - self._last_seen > START_SECONDS:
            raise TokcliError(
                f"no actor of {self._sizes.cpus} CPUs and {self._sizes.gpus:g} GPUs could start within "
                f"{START_SECONDS:.0f} s; `ray status` shows what the cluster has and who uses it. What is done is "
                "kept: the same command goes on from here"
            )

    def open(self, slot: Slot, samples: list[str]) -> None:
        slot.enter("opening", slot.actor.open.remote(slot.index, len(self.slots), samples))

    def answers(self, seconds: float) -> Iterator[tuple[Slot, Loaded | Report | Death]]:
        """What has come, after ``seconds`` at the latest; the steps that lead from starting to loading are taken here.

        Raises what was raised in an actor.
        """
        slots = {slot.call: slot for slot in self.slots if slot.call is not None}
        for call in self._cluster.wait(list(slots), seconds):
            slot = slots[call]
            slot.call = None
            try:
                answer = self._cluster.result(call)
            except ActorLostError as error:
                yield slot, self._died(slot, str(error))
                continue
            except CacheLockedError as error:
                if not slot.has_worked:
                    raise
                # The one before it may still be ending on a node that cannot be reached.
                yield slot, self._died(slot, str(error))
                continue
            if isinstance(answer, Place):
                slot.place = answer
                slot.enter("loading", slot.actor.load.remote())
            elif isinstance(answer, Loaded):
                slot.enter("loaded")
                yield slot, answer
            elif slot.state == "opening":
                slot.failed_starts, slot.has_worked = 0, True
                slot.enter("working")
            else:
                yield slot, answer

    def _died(self, slot: Slot, reason: str) -> Death:
        self._cluster.kill(slot.actor)
        alive = {node.id for node in self._cluster.nodes()}
        death = Death(reason, slot.state, slot.place is not None and slot.place.node not in alive, slot.where)
        if slot.state != "working":
            slot.failed_starts += 1
        slot.enter("retired" if slot.failed_starts >= MAX_FAILED_STARTS else "dead")
        slot.since += 2.0**slot.failed_starts - 1
        if all(other.state == "retired" for other in self.slots):
            raise TokcliError(f"actors die at start: {reason}; run `tokcli doctor` on the nodes of the cluster")
        return death

    def close(self) -> None:
        """Let actors commit what is whole, and end them. Takes ``CLOSE_SECONDS`` at most; nothing is raised."""
        calls = [slot.actor.close.remote() for slot in self.slots if slot.state in ("opening", "working")]
        until = time.monotonic() + CLOSE_SECONDS
        while calls and time.monotonic() < until:
            ended = self._cluster.wait(calls, until - time.monotonic())
            calls = [call for call in calls if call not in ended]
        for slot in self.slots:
            if slot.actor is not None:
                self._cluster.kill(slot.actor)
            slot.enter("retired")
