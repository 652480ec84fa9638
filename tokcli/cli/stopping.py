"""Ctrl-C and SIGTERM: finish what is whole, say so, end with the signal's own exit code."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from tokcli.cli.output import notices

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_requested: list[int] = []


class Stopped(BaseException):
    """A stop was asked for. No ``KeyboardInterrupt``: the command-line library would swallow that without a word."""

    def __init__(self, signum: int) -> None:
        self.exit_code = 128 + signum


def check_stop() -> None:
    """Raise ``Stopped`` if a signal has come.

    The handler raises too, but an exception out of a handler is lost when the signal falls into a destructor or a
    callback of the interpreter; loops that run for long call this as well.
    """
    if _requested:
        raise Stopped(_requested[0])


def _stop(signum: int, frame: FrameType | None) -> None:
    _requested.append(signum)
    for known in SIGNALS:
        # From here on everything is being closed; a second Ctrl-C would only tear that.
        signal.signal(known, signal.SIG_IGN)
    notices.print("stopping: keeping what is finished ...")
    raise Stopped(signum)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Handle both signals inside; outside, where there is nothing to keep, they end the process at once."""
    before = {known: signal.signal(known, _stop) for known in SIGNALS}
    try:
        yield
    finally:
        if not _requested:
            for known, handler in before.items():
                signal.signal(known, handler)
