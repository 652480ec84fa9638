"""`tokcli eval`: questions and media (or caches) in, a table of what compression costs out. Read ``evaluate`` first."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from blake3 import blake3

from tokcli.cache.atomic import write_atomically
from tokcli.cache.measure import SizeMeter
from tokcli.errors import UsageError
from tokcli.evaluate.baselines import matched_settings
from tokcli.evaluate.caches import are_caches, open_caches
from tokcli.evaluate.encoding import Encoder
from tokcli.evaluate.guessing import guessed
from tokcli.evaluate.identity import weights_digest
from tokcli.evaluate.journal import Journal
from tokcli.evaluate.judging import AgainstFull, AgainstLabels, AskOptions
from tokcli.evaluate.matching import by_item
from tokcli.evaluate.observer import EvalObserver, SilentEval
from tokcli.evaluate.questions import Question, general_questions, read_questions
from tokcli.evaluate.rows import Results, Row, make_rows
from tokcli.evaluate.runner import Outcome, Runner, Source
from tokcli.evaluate.settings import (
    DEFAULT_KEEP,
    DEFAULT_METHODS,
    FULL,
    GUESS,
    Setting,
    method_settings,
    signals_of,
)
from tokcli.models import LanguageModel, load_language_model
from tokcli.recipe import EvalRecipe
from tokcli.storage import only_local

OUTCOMES, RESULTS = "outcomes.jsonl", "results"


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    document: dict[str, Any]
    """``results.json``: under ``results`` a row for each setting and kind, under ``evaluation`` how it was made."""
    folder: Path
    failed: int
    """Items that were asked about and could not be decoded or encoded; no row counts them."""

    @property
    def rows(self) -> list[Row]:
        rows: list[Row] = self.document["results"]
        return rows


def evaluate(recipe: EvalRecipe, observer: EvalObserver | None = None) -> Evaluation:
    """Answer the questions from all tokens, from what every method keeps, and from what the baselines keep.

    Goes on where an earlier run in the same folder was stopped. Writes ``results.json`` and ``results.parquet``.
    Raises ``UsageError`` before any work for what cannot work, ``CacheConflictError`` where the folder holds another
    evaluation.
    """
    observer = observer or SilentEval()
    asked = _questions(recipe)
    if are_caches(recipe.inputs):
        return _evaluate_caches(recipe, asked, observer)
    settings = method_settings(
        recipe.methods or DEFAULT_METHODS, recipe.keep or DEFAULT_KEEP, recipe.options, recipe.seed
    )
    with Encoder(recipe, observer) as encoder:
        questions, missing = by_item(asked, encoder.ids)
        _tell_left_out(missing, len(encoder.ids) - len(questions), observer)
        encoder.only(questions)
        settings = encoder.carried(settings, recipe.methods or DEFAULT_METHODS)
        configuration = _configuration(recipe, recipe.model or "nano")
        with Journal(_folder(recipe) / OUTCOMES, configuration, overwrite=recipe.overwrite) as journal:
            sources = encoder.sources(settings, signals_of(settings), journal)
            judge = _judge(recipe, recipe.model or "nano", sources[FULL].cache.manifest.configuration["model"])
            runner = Runner(sources, questions, judge, journal)
            table = _run(runner, settings, _in_all(questions, sources), observer)
            settings += matched_settings(settings, table, seed=recipe.seed, encoding=encoder.tower.sizer.scalable)
            runner.sources = encoder.sources(settings, signals_of(settings), journal)
            ids = _in_all(questions, runner.sources)
            table = _run(runner, settings, ids, observer)
        failed = len(questions) - len(ids)
        return _finish(recipe, configuration, settings, table, runner, encoder.seconds, failed)


def _evaluate_caches(recipe: EvalRecipe, asked: Sequence[Question], observer: EvalObserver) -> Evaluation:
    if recipe.methods is not None or recipe.keep is not None:
        raise UsageError("caches are evaluated as they are; leave methods and keep out, or give the media instead")
    caches = open_caches(recipe.inputs)
    for text in caches.notes:
        observer.note(text)
    if recipe.against is not None and FULL not in caches.sources:
        raise UsageError("--against full needs a cache with all tokens; make one with `tokcli compress --method none`")
    ids = caches.ids[: recipe.limit]
    questions, missing = by_item(asked, ids)
    _tell_left_out(missing, len(ids) - len(questions), observer)
    model = recipe.model or str(caches.identity["model"])
    judge = _judge(recipe, model, caches.identity)
    judge.model()  # before anything is written: it may not be the one that made the caches
    configuration = _configuration(recipe, model)
    with Journal(_folder(recipe) / OUTCOMES, configuration, overwrite=recipe.overwrite) as journal:
        runner = Runner(caches.sources, questions, judge, journal)
        settings, ids = caches.settings, list(questions)
        table = _run(runner, settings, ids, observer)
        if FULL in caches.sources:
            settings = settings + matched_settings(settings, table, seed=recipe.seed, encoding=False)
            table = _run(runner, settings, ids, observer)
    return _finish(recipe, configuration, settings, table, runner, {}, 0)


def _questions(recipe: EvalRecipe) -> list[Question]:
    asked = [] if recipe.qa is None else read_questions(Path(recipe.qa), labelled=recipe.against is None)
    return [*asked, *general_questions(recipe.prompt, len(asked))]


def _tell_left_out(missing: Sequence[str], unasked: int, observer: EvalObserver) -> None:
    if unasked:
        observer.note(f"{unasked} items have no question about them and are left out")
    if missing:
        names = ", ".join(map(repr, list(dict.fromkeys(missing))[:3]))
        observer.warning(f"{len(missing)} questions are about other items and are left out: {names}")


def _folder(recipe: EvalRecipe) -> Path:
    folder = only_local(recipe.output, "evaluating", "write it here, and copy it")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder with -o")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / OUTCOMES).exists():
        raise UsageError(f"{folder} holds other files; give an empty or a new folder with -o")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _configuration(recipe: EvalRecipe, model: str) -> dict[str, Any]:
    """What every outcome of a folder depends on, beside the setting and the item."""
    return {
        "model": weights_digest(model),
        "dtype": recipe.dtype,
        "sampling": recipe.sampling.model_dump(),
        "resize": recipe.resize,
        "qa": None if recipe.qa is None else blake3(Path(recipe.qa).read_bytes()).hexdigest(length=16),
        "prompts": recipe.prompt,
        "against": recipe.against,
        "positions": recipe.positions,
        "max_new_tokens": recipe.max_new_tokens,
        "system": recipe.system,
    }


def _judge(recipe: EvalRecipe, model: str, tower: Mapping[str, Any]) -> AgainstLabels | AgainstFull:
    @cache
    def load() -> LanguageModel:
        loaded = load_language_model(model, dtype=recipe.dtype, device=recipe.device)
        loaded.check(tower)
        return loaded

    options = AskOptions(recipe.max_new_tokens, recipe.positions, recipe.system)
    return AgainstLabels(load, options) if recipe.against is None else AgainstFull(load, options)


def _in_all(questions: Mapping[str, Sequence[Question]], sources: Mapping[str, Source]) -> list[str]:
    ids = [item_id for item_id in questions if all(item_id in source.cache for source in sources.values())]
    if not ids:
        raise UsageError("none of the items could be decoded and encoded; the lines above say why")
    return ids


def _run(
    runner: Runner, settings: Sequence[Setting], ids: Sequence[str], observer: EvalObserver
) -> list[list[Outcome]]:
    total = len(settings) * len(ids)
    with observer.answering(total, total - runner.pending(settings, ids)) as steps:
        return runner.run(settings, ids, steps.step)


def _finish(
    recipe: EvalRecipe,
    configuration: Mapping[str, Any],
    settings: Sequence[Setting],
    table: list[list[Outcome]],
    runner: Runner,
    encode_seconds: Mapping[str, float | None],
    failed: int,
) -> Evaluation:
    """Make the rows and write them."""
    ids = [outcome.item for outcome in table[0]]
    questions = {item_id: runner.questions[item_id] for item_id in ids}
    if recipe.against is None:
        settings, table = [*settings, Setting(GUESS, source=None)], [*table, guessed(questions, table[0])]
    meters = {name: SizeMeter(source.cache.manifest, source.cache.codec) for name, source in runner.sources.items()}
    results = Results(settings, table, questions, meters, encode_seconds)
    measure = "accuracy" if recipe.against is None else "agreement"
    rows = make_rows(results, measure=measure, samples=recipe.bootstrap, seed=recipe.seed)
    document = {
        "results": rows,
        "evaluation": {
            "inputs": recipe.inputs,
            "questions": sum(len(asked) for asked in questions.values()),
            "items": len(ids),
            "failed": failed,
            "seed": recipe.seed,
            "bootstrap": recipe.bootstrap,
            **configuration,
        },
    }
    return Evaluation(document, _write(Path(recipe.output), document), failed)


def _write(folder: Path, document: Mapping[str, Any]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_atomically(folder / f"{RESULTS}.json", (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    rows: Collection[Row] = document["results"]
    names = dict.fromkeys(name for row in rows for name in row)
    buffer = io.BytesIO()
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), buffer)
    write_atomically(folder / f"{RESULTS}.parquet", buffer.getvalue())
    return folder
