"""Measures settings on items for the search, and how long it takes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

import numpy as np
from blake3 import blake3

from tokcli.evaluate.journal import Journal
from tokcli.evaluate.observer import EvalObserver
from tokcli.evaluate.runner import Outcome, Runner
from tokcli.evaluate.settings import Setting
from tokcli.evaluate.tune_board import Cells
from tokcli.evaluate.tune_bounds import Floats
from tokcli.models import LanguageModel


class LoadedOnce:
    """The language model, loaded and warmed up when it is first needed; says how long that took."""

    def __init__(self, load: Callable[[], LanguageModel]) -> None:
        self._load = load
        self._model: LanguageModel | None = None
        self.seconds = 0.0

    def __call__(self) -> LanguageModel:
        if self._model is None:
            started = time.perf_counter()
            self._model = self._load()
            # The first call of a model pays for imports and set-up that no later one pays for.
            self._model.ask(None, ["?"], max_new_tokens=1)
            self.seconds = time.perf_counter() - started
        return self._model


class RunnerTrials:
    """Trials of :func:`tokcli.evaluate.halving.choose` by a runner.

    The time of each call is written to the journal: a run that is repeated takes its decisions by the same times.
    """

    def __init__(
        self,
        runner: Runner,
        settings: Sequence[Setting],
        ids: Sequence[str],
        *,
        allowed: float,
        model: LoadedOnce,
        journal: Journal,
        observer: EvalObserver,
    ) -> None:
        self.allowed, self.spent = allowed, 0.0
        self._runner, self._settings, self._ids = runner, settings, ids
        self._model, self._journal, self._observer = model, journal, observer

    def run(self, settings: Sequence[int], items: Sequence[int]) -> Cells:
        chosen, ids = [self._settings[s] for s in settings], [self._ids[i] for i in items]
        total, pending = len(chosen) * len(ids), self._runner.pending(chosen, ids)
        started = time.perf_counter() - self._model.seconds
        with self._observer.answering(total, total - pending) as steps:
            table = self._runner.run(chosen, ids, steps.step)
        seconds = time.perf_counter() - self._model.seconds - started
        self.spent += self._noted(chosen, ids, seconds, new=bool(pending))
        return _cells(table)

    def _noted(self, settings: Sequence[Setting], ids: Sequence[str], seconds: float, *, new: bool) -> float:
        asked = [[question.number for question in self._runner.questions[item_id]] for item_id in ids]
        content = json.dumps([[setting.name for setting in settings], ids, asked])
        key = f"call:{blake3(content.encode()).hexdigest(length=16)}"
        if new or key not in self._journal.lines:
            self._journal.add(key, {"seconds": round(seconds, 4)})
        return float(self._journal.lines[key]["seconds"])


def _cells(table: Sequence[Sequence[Outcome]]) -> Cells:
    def each(value: Callable[[Outcome], float]) -> Floats:
        return np.array([[value(outcome) for outcome in outcomes] for outcomes in table], dtype=np.float64)

    return Cells(
        kept=each(lambda outcome: float("nan") if outcome.error else outcome.kept_tokens),
        source=each(lambda outcome: outcome.source_tokens),
        asked=each(lambda outcome: len(outcome.judged)),
        lost=each(lambda outcome: sum(1 - judged.score for judged in outcome.judged)),
    )
