"""Progress of a run on stderr: a live line on a terminal, plain lines every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tokcli.cli.output import counted, human_seconds, note, notices, plain, share, warn
from tokcli.cli.stopping import check_stop
from tokcli.pipeline.progress import Progress

PLAIN_SECONDS = 10.0
MAX_FAILURE_LINES = 20


class StatusLine:
    """What changes while a command runs: redrawn in place on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self._live: Live | None = None
        self._last_plain = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def start(self) -> None:
        """Begin to draw, where there is a terminal."""
        if notices.is_terminal and not self.quiet:
            self._live = Live(console=notices, refresh_per_second=4, transient=True)
            self._live.start()

    def show(self, line: Callable[[], str], drawn: Callable[[], RenderableType] | None = None) -> None:
        """Bring up to date; ``drawn`` is what a terminal gets instead of the line. Stops a run that is to stop."""
        check_stop()
        if self.quiet:
            return
        if self._live is not None:
            self._live.update(Text(line()) if drawn is None else drawn())
        elif time.monotonic() - self._last_plain >= PLAIN_SECONDS:
            self._last_plain = time.monotonic()
            notices.print(line(), soft_wrap=True)


class ProgressDisplay(StatusLine):
    """Observer that draws. Use as a context manager.

    Without ``notes`` it says nothing of what a run is made of: for commands that make a cache only to look at it.
    """

    def __init__(self, quiet: bool = False, *, notes: bool = True) -> None:
        super().__init__(quiet)
        self.notes = notes
        self._begun = False
        self.failures: Counter[str] = Counter()
        self.failure_lines = 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        hidden = sum(self.failures.values()) - self.failure_lines
        if hidden > 0 and not self.quiet:
            warn(f"and {counted(hidden, 'more failure')}; `tokcli inspect CACHE --errors` lists them all")

    def begin(self, progress: Progress, notes: list[str]) -> None:
        self._begun = True
        if self.quiet:
            return
        todo = progress.items - progress.skipped - progress.failed
        if self.notes:
            for text in notes:
                note(plain(text))
            inputs = counted(progress.items, "input")
            failed = f" {progress.failed:,} failed," if progress.failed else ""
            note(f"{inputs}: {progress.skipped:,} already in the cache,{failed} {todo:,} to do")
        if todo:
            self.start()

    def update(self, progress: Progress) -> None:
        if self._begun:
            self.show(lambda: _line(progress), lambda: _drawn(progress))
        else:  # what is to be done is not known yet
            check_stop()

    def failure(self, item_id: str, stage: str, message: str) -> None:
        self.failures[stage] += 1
        if self.quiet or self.failure_lines >= MAX_FAILURE_LINES:
            return
        self.failure_lines += 1
        # Messages of the media stage name the file already.
        notices.print(f"[red]failed[/red] ({stage}) {escape(_with_id(item_id, message))}", soft_wrap=True)

    def warning(self, item_id: str, message: str) -> None:
        if not self.quiet:
            warn(_with_id(item_id, message))


def _with_id(item_id: str, message: str) -> str:
    name = plain(item_id)
    return message if name in message else f"{name}: {message}"


def _line(progress: Progress) -> str:
    counts, rest = _parts(progress)
    return " | ".join(counts + rest)


def _parts(progress: Progress) -> tuple[list[str], list[str]]:
    """How far it is, and what it is about."""
    left = progress.seconds_left
    finished = progress.skipped + progress.done + progress.failed
    counts = [
        f"{finished:,}/{counted(progress.items, 'item')}",
        f"{progress.failed:,} failed",
        *([f"{human_seconds(left)} left"] if left is not None else []),
    ]
    rest = [
        f"{human_seconds(progress.media_seconds)} of media",
        f"{progress.media_seconds / max(progress.seconds, 1e-9):.1f}x real time",
        f"tokens {progress.source_tokens:,} -> {progress.kept_tokens:,} "
        f"({share(progress.kept_tokens, progress.source_tokens)})",
    ]
    return counts, rest


def _drawn(progress: Progress) -> Group:
    bar = ProgressBar(total=1.0, completed=progress.share_done, width=28)
    counts, rest = _parts(progress)
    row = Table.grid(padding=(0, 1))
    row.add_row(bar, Text(" | ".join(counts)))
    current = ", ".join(plain(item_id) for item_id in progress.current[:3])
    below = (" | ".join(rest), f"now: {current}")
    return Group(row, *(Text(f"  {text}", style="dim", overflow="ellipsis", no_wrap=True) for text in below))
