"""`tokcli tune`: media and questions in, the smallest setting that keeps enough answers out. Read ``tune`` first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blake3 import blake3

from tokcli.errors import MethodError, UsageError
from tokcli.evaluate.encoding import Encoder
from tokcli.evaluate.halving import Rules, choose
from tokcli.evaluate.identity import weights_digest
from tokcli.evaluate.journal import Journal
from tokcli.evaluate.judging import AskOptions
from tokcli.evaluate.observer import EvalObserver, SilentEval
from tokcli.evaluate.runner import Runner, Source
from tokcli.evaluate.settings import FULL, signals_of
from tokcli.evaluate.tune_judging import KeepsAnswers
from tokcli.evaluate.tune_report import Found, Tuning, write_report
from tokcli.evaluate.tune_sample import Asked, draw_sample, read_asked
from tokcli.evaluate.tune_settings import Candidate, candidates
from tokcli.evaluate.tune_trials import LoadedOnce, RunnerTrials
from tokcli.models import LanguageModel, load_language_model
from tokcli.pipeline.restore import visual_tokens
from tokcli.recipe import EvalRecipe, TuneRecipe
from tokcli.storage import only_local
from tokcli.types import VisualTokens

TRIED = "tried.jsonl"


def tune(recipe: TuneRecipe, observer: EvalObserver | None = None) -> Tuning:
    """Find the smallest setting that keeps ``retain`` of the answers, on a random sample of the inputs.

    Goes on where an earlier run in the same folder was stopped. Writes ``tune.json`` and a recipe that uses the choice.
    Raises ``UsageError`` before any work for what cannot work, ``CacheConflictError`` where the folder holds the search
    of another model or about other questions.
    """
    observer = observer or SilentEval()
    chains = candidates(recipe)
    asked = read_asked(recipe)
    with Encoder(_encoding(recipe), observer) as encoder:
        questions = draw_sample(recipe, asked, encoder.ids, observer)
        inputs = len(encoder.ids)
        encoder.only(questions)
        settings = [candidate.setting for chain in chains for candidate in chain]
        encoder.carried(settings, [setting.label for setting in settings])
        with Journal(_folder(recipe) / TRIED, _configuration(recipe), overwrite=recipe.overwrite) as journal:
            sources = encoder.sources(settings, signals_of(settings), journal)
            cache = sources[FULL].cache
            ids = [item_id for item_id in questions if item_id in cache]
            if len(ids) < 2:
                raise UsageError(f"{len(ids)} of the sample could be decoded and encoded; tune needs at least 2 items")
            # An earlier run in this folder may have encoded more than this one asks about.
            seconds = float(encoder.seconds[FULL] or 0.0) * len(ids) / len(cache.ids())
            model = _model(recipe, sources[FULL])
            trials = RunnerTrials(
                Runner(sources, questions, _judge(recipe, asked, model), journal, sizes=False),
                settings,
                ids,
                allowed=seconds * recipe.answer_time or math.inf,
                model=model,
                journal=journal,
                observer=observer,
            )
            numbers = _numbered(chains, visual_tokens(cache[ids[0]]))
            choice, board = choose(trials, numbers, len(ids), Rules(recipe.retain, recipe.confidence))
    if not board.asked.any():
        raise UsageError("with all tokens the model gets none of the questions right: there is nothing to keep")
    tried = [candidate for chain in chains for candidate in chain]
    found = Found(tried, choice, board, inputs, len(questions) - len(ids), asked.labelled, seconds, recipe.retain)
    return write_report(recipe, found)


def _encoding(recipe: TuneRecipe) -> EvalRecipe:
    """What the encoder of evaluations is told."""
    names = EvalRecipe.model_fields.keys() & TuneRecipe.model_fields.keys() - {"qa", "prompt", "methods", "keep"}
    # Questions are not the encoder's business, but a recipe of an evaluation has some.
    return EvalRecipe(**{name: getattr(recipe, name) for name in names}, prompt=["-"], against="full")


def _folder(recipe: TuneRecipe) -> Path:
    folder = only_local(recipe.output, "tuning", "write it here, and copy it")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a folder with -o")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / TRIED).exists():
        raise UsageError(f"{folder} holds other files; give an empty or a new folder with -o")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _configuration(recipe: TuneRecipe) -> dict[str, Any]:
    """What every outcome of a folder depends on, beside the setting, the item and the questions' numbers."""
    return {
        "model": weights_digest(recipe.model),
        "dtype": recipe.dtype,
        "sampling": recipe.sampling.model_dump(),
        "resize": recipe.resize,
        "qa": None if recipe.qa is None else blake3(Path(recipe.qa).read_bytes()).hexdigest(length=16),
        "prompts": recipe.prompt,
        "positions": recipe.positions,
        "max_new_tokens": recipe.max_new_tokens,
        "system": recipe.system,
    }


def _model(recipe: TuneRecipe, source: Source) -> LoadedOnce:
    def load() -> LanguageModel:
        model = load_language_model(recipe.model, dtype=recipe.dtype, device=recipe.device)
        model.check(source.cache.manifest.configuration["model"])
        return model

    return LoadedOnce(load)


def _judge(recipe: TuneRecipe, asked: Asked, model: LoadedOnce) -> KeepsAnswers:
    options = AskOptions(recipe.max_new_tokens, recipe.positions, recipe.system)
    return KeepsAnswers(model, options, labelled=asked.labelled)


def _numbered(chains: Sequence[Sequence[Candidate]], item: VisualTokens) -> list[list[int]]:
    """Numbers of the candidates, in each chain from the most tokens to the fewest: for thresholds an item tells."""
    numbered, first = [], 0
    for chain in chains:
        numbers = list(range(first, first + len(chain)))
        if chain[0].threshold is not None:
            sizes = dict(zip(numbers, (_size(candidate, item) for candidate in chain)))
            numbers.sort(key=sizes.__getitem__, reverse=True)
        numbered.append(numbers)
        first += len(chain)
    return numbered


def _size(candidate: Candidate, item: VisualTokens) -> int:
    compressor = candidate.setting.method
    assert compressor is not None
    try:
        return len(compressor.compress(item, "").tokens)
    except MethodError:
        return 0
