"""Progress of an evaluation on stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from tokcli.cli.display import PLAIN_SECONDS, ProgressDisplay
from tokcli.cli.output import note, notices, warn
from tokcli.cli.stopping import check_stop
from tokcli.evaluate.observer import EvalSteps
from tokcli.pipeline.progress import Observer
from tokcli.pipeline.progress import Progress as RunProgress


class EvalDisplay:
    """Observer that draws."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def note(self, text: str) -> None:
        if not self.quiet:
            note(text)

    def warning(self, text: str) -> None:
        if not self.quiet:
            warn(text)

    @contextlib.contextmanager
    def encoding(self, name: str) -> Iterator[Observer]:
        with _EncodingDisplay(name, self.quiet) as display:
            yield display

    @contextlib.contextmanager
    def answering(self, outcomes: int, known: int) -> Iterator[EvalSteps]:
        if not self.quiet and outcomes > known:
            note(f"{outcomes} settings times items to ask about: {known} known, {outcomes - known} to do")
        with _Steps(outcomes, drawn=not self.quiet and outcomes > known) as steps:
            yield steps


class _EncodingDisplay(ProgressDisplay):
    """One of several caches: its name says what it is made with."""

    def __init__(self, name: str, quiet: bool) -> None:
        super().__init__(quiet)
        self.name = name

    def begin(self, progress: RunProgress, notes: list[str]) -> None:
        super().begin(progress, [f"encoding {self.name}"])


class _Steps:
    """A bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, outcomes: int, *, drawn: bool) -> None:
        self.outcomes, self.drawn = outcomes, drawn
        self.last_plain = time.monotonic()
        self.bar: Progress | None = None
        self.task: TaskID | None = None

    def __enter__(self) -> _Steps:
        if self.drawn and notices.is_terminal:
            columns = (TextColumn("asking"), BarColumn(28), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=notices, transient=True)
            self.task = self.bar.add_task("asking", total=self.outcomes)
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def step(self, done: int) -> None:
        check_stop()
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, completed=done)
        elif self.drawn and time.monotonic() - self.last_plain >= PLAIN_SECONDS:
            self.last_plain = time.monotonic()
            notices.print(f"asked {done}/{self.outcomes}", soft_wrap=True)
