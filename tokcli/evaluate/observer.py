"""What an evaluation tells while it goes on."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Protocol

from tokcli.pipeline.progress import Observer, Silent


class EvalObserver(Protocol):
    """Sees an evaluation from outside: the command line draws it."""

    def note(self, text: str) -> None: ...

    def warning(self, text: str) -> None: ...

    def encoding(self, name: str) -> AbstractContextManager[Observer]:
        """Watches the making of one cache."""

    def answering(self, outcomes: int, known: int) -> AbstractContextManager[EvalSteps]:
        """Watches the questions of settings times items; ``known`` are answered from an earlier run."""


class EvalSteps(Protocol):
    def step(self, done: int) -> None:
        """``done`` outcomes are there, those of an earlier run included."""


class SilentEval:
    """An observer that says nothing."""

    def note(self, text: str) -> None:
        pass

    def warning(self, text: str) -> None:
        pass

    def step(self, done: int) -> None:
        pass

    def encoding(self, name: str) -> AbstractContextManager[Observer]:
        return contextlib.nullcontext(Silent())

    def answering(self, outcomes: int, known: int) -> AbstractContextManager[EvalSteps]:
        return contextlib.nullcontext(self)
