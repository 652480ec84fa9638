"""What a run tells while it goes on, and what it tells at the end."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Any, Protocol

from tokcli.pipeline.pace import Pace


@dataclass
class Progress:
    """Counts of one run, kept up to date by the encoder loop."""

    items: int = 0
    """All inputs of the run."""
    skipped: int = 0
    """Already in the cache when the run began."""
    done: int = 0
    failed: int = 0
    """Failed in this run, or failed before and not tried again."""
    media_seconds: float = 0.0
    source_tokens: int = 0
    kept_tokens: int = 0
    """Of a run that fills several caches: what the first of them got that missed the item."""
    bytes_done: int = field(default=0, init=False)
    bytes_total: int = field(default=0, init=False)
    """Source bytes of the items that this run has to do."""
    finished: int = field(default=0, init=False)
    due: int = field(default=0, init=False)
    """Of these items, those that are done or failed, and all."""
    current: list[str] = field(default_factory=list)
    started: float = field(default_factory=lambda: monotonic())

    def __post_init__(self) -> None:
        self.expect(())

    def expect(self, sizes: Collection[int]) -> None:
        """Say how many bytes each item has that this run has to do; the time left counts from here."""
        self.due, self.bytes_total = len(sizes), sum(sizes)
        self._pace = Pace(max(1.0, self.bytes_total / max(1, self.due)))
        self._began = self._last = monotonic()

    def finish(self, num_bytes: int) -> None:
        """Count an item of ``expect`` as done or failed."""
        self.finished += 1
        self.bytes_done += num_bytes
        now = monotonic()
        self._pace.add(num_bytes, now - self._last)
        self._last = now

    def take_back(self, num_bytes: int) -> None:
        """Undo ``finish`` for an item that has to be done again; how long it took stays known."""
        self.finished -= 1
        self.bytes_done -= num_bytes

    @property
    def seconds(self) -> float:
        return monotonic() - self.started

    @property
    def share_done(self) -> float:
        """Of the work that this run has to do, in [0, 1]."""
        whole = self._pace.work(self.due, self.bytes_total)
        # A file that grew since it was looked at must not make more than the whole.
        return min(1.0, self._pace.work(self.finished, self.bytes_done) / whole) if whole else 0.0

    @property
    def seconds_left(self) -> float | None:
        """None before anything is done."""
        share = self.share_done
        return (monotonic() - self._began) * (1 - share) / share if share else None


class Observer(Protocol):
    """Sees a run from outside: the command line draws it, tests count with it."""

    def begin(self, progress: Progress, notes: list[str]) -> None: ...

    def update(self, progress: Progress) -> None: ...

    def failure(self, item_id: str, stage: str, message: str) -> None: ...

    def warning(self, item_id: str, message: str) -> None: ...


class Silent:
    """An observer that says nothing."""

    def begin(self, progress: Progress, notes: list[str]) -> None:
        pass

    def update(self, progress: Progress) -> None:
        pass

    def failure(self, item_id: str, stage: str, message: str) -> None:
        pass

    def warning(self, item_id: str, message: str) -> None:
        pass


@dataclass(frozen=True)
class OverBudget:
    """Items that keep clearly more than ``keep`` asked for: their method could not do with fewer."""

    items: int
    keep: float
    """The share of an item's tokens that was asked for."""
    largest_share: float
    """What the worst of them keeps."""
    worst: str
    """Its id."""


@dataclass(frozen=True)
class CompressSummary:
    """Where the cache stands after a run. Tokens, bytes and media seconds are those of all inputs in the cache, also of
    those that an earlier run did; ``seconds`` and ``done`` are this run's."""

    items: int
    done: int
    failed: int
    skipped: int
    source_tokens: int
    kept_tokens: int
    token_bytes: int
    """What all source tokens would take as the vision tower computes them."""
    source_bytes: int
    cache_bytes: int
    media_seconds: float
    seconds: float
    output: str
    method: dict[str, Any]
    model: str
    removed: tuple[str, ...] = ()
    """Ids in the cache, of finished and failed items, that are no inputs any more; not looked for with a limit."""
    pruned: bool = False
    """Whether they were dropped from the cache."""
    over_budget: OverBudget | None = None
    """Of all inputs in the cache; None where all keep what was asked for."""
    also: tuple[CompressSummary, ...] = ()
    """The same of the other caches that were filled by the same run."""
    shard: str | None = None
    """``3/8`` for a run that did one part: all but ``cache_bytes``, ``missing`` and ``others`` is of that part."""
    missing: int = 0
    """Inputs that the cache does not have at the end of the run: those of other parts that are not done."""
    others: int = 0
    """Items in the cache that are no inputs of this run; ``cache_bytes`` is what it takes with them."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def describe_method(method: Mapping[str, Any]) -> str:
    """``dtd(criterion=feature, threshold=0.5)`` from a method's JSON, for people to read."""
    parts = []
    for stage in method["methods"]:
        options = ", ".join(f"{key}={value}" for key, value in stage["options"].items() if value is not None)
        parts.append(f"{stage['name']}({options})" if options else stage["name"])
    return " then ".join(parts)
