"""Progress of `tokcli export` on stderr."""

from __future__ import annotations

import time

from tokcli.cli.display import StatusLine
from tokcli.cli.output import counted, human_seconds, note


class ExportDisplay(StatusLine):
    """Says how many items are written, and for how long it goes on. Use as a context manager."""

    def begin(self, total: int, notes: list[str]) -> None:
        self._total, self._began = total, time.monotonic()
        if not self.quiet:
            for text in notes:
                note(text)
        self.start()

    def item(self, done: int, tokens: int) -> None:
        def line() -> str:
            left = (time.monotonic() - self._began) / done * (self._total - done)
            return f"{done}/{counted(self._total, 'item')} | {tokens:,} tokens | {human_seconds(left)} left"

        self.show(line)
