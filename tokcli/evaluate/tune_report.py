"""What `tokcli tune` found, as a document, a command line and a recipe."""

from __future__ import annotations

import glob
import json
import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tokcli.cache.atomic import write_atomically
from tokcli.evaluate.halving import LARGER, Choice, split
from tokcli.evaluate.tune_board import Board
from tokcli.evaluate.tune_bounds import Retained, retained
from tokcli.evaluate.tune_settings import Candidate
from tokcli.models.checkpoints import canonical_name
from tokcli.pipeline.recorded import exact
from tokcli.recipe import CompressRecipe, TuneRecipe

DOCUMENT, RECIPE = "tune.json", "recipe.yaml"
LARGEST_SAMPLE = 1 << 16
SHARED = (
    "model",
    "seed",
    "sampling",
    "resize",
    "dtype",
    "device",
    "path_col",
    "id_col",
    "limit",
    "workers",
    "timeout",
)
"""What a compression is told as the search was."""


@dataclass(frozen=True)
class Found:
    """The search's end, before it is put into words."""

    tried: Sequence[Candidate]
    choice: Choice
    board: Board
    inputs: int
    failed: int
    """Items of the sample that could not be decoded or encoded."""
    labelled: bool
    encode_seconds: float
    retain: float

    @property
    def chosen(self) -> Candidate | None:
        return None if self.choice.setting is None else self.tried[self.choice.setting]


@dataclass(frozen=True)
class Tuning:
    """What was found."""

    document: dict[str, Any]
    folder: Path

    @property
    def summary(self) -> str:
        """One line: what is kept, and how sure that is."""
        document = self.document
        ends = "" if document["ci"] is None else f" [{document['ci'][0]:.3f}, {document['ci'][1]:.3f}]"
        sure = "" if document["certain"] else ", uncertain"
        return (
            f"keeps {document['kept_share']:.1%} of the tokens and {document['retained']:.1%}{ends} of the answers, "
            f"asked for {document['retain']:.1%}{sure}"
        )


def write_report(recipe: TuneRecipe, found: Found) -> Tuning:
    """Write ``tune.json`` and the recipe, and return them."""
    folder = Path(recipe.output)
    compress = _compress(recipe, found.chosen)
    path = Path(recipe.recipe) if recipe.recipe is not None else folder / RECIPE
    document = _document(recipe, found) | {"command": command_line(compress), "recipe": str(path)}
    tuning = Tuning(document, folder)
    step = _from_anywhere(compress).model_dump(exclude_defaults=True)
    described = {"description": f"Chosen by tokcli tune: {tuning.summary}", "compress": step}
    text = yaml.safe_dump(described, sort_keys=False, width=120)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode())
    write_atomically(folder / DOCUMENT, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    return tuning


def _compress(recipe: TuneRecipe, chosen: Candidate | None) -> CompressRecipe:
    shared = {name: getattr(recipe, name) for name in SHARED}
    setting = {"method": "none"} if chosen is None else chosen.to_json()
    return CompressRecipe(inputs=recipe.inputs, output=recipe.cache, **setting, **shared)


def absolute(given: str) -> str:
    """A path or a pattern that means the same from any working directory."""
    pattern = glob.has_magic(given) and not os.path.lexists(given)
    # What looks like a pattern in the working directory's own name is none.
    here = glob.escape(str(Path.cwd())) if pattern else Path.cwd()
    return str(here / Path(given))


def _from_anywhere(recipe: CompressRecipe) -> CompressRecipe:
    """The same with absolute paths: `tokcli run` is also called from other folders than the search was."""
    paths = {"inputs": [absolute(given) for given in recipe.inputs], "output": absolute(recipe.output)}
    return recipe.model_copy(update={**paths, "model": canonical_name(recipe.model)})


def command_line(recipe: CompressRecipe) -> str:
    """`tokcli compress ...` that does what the recipe says."""
    words = ["tokcli", "compress", *recipe.inputs, "-o", recipe.output, "--method", recipe.method]
    sampling = recipe.sampling
    default = CompressRecipe(inputs=recipe.inputs, output=recipe.output)
    flags: dict[str, Any] = {
        "--keep": recipe.keep,
        "--threshold": recipe.threshold,
        "--num-frames": sampling.num_frames,
        "--max-frames": sampling.max_frames,
        "--fps": None if sampling.num_frames or sampling.fps == default.sampling.fps else sampling.fps,
    }
    for name in ("model", "seed", "resize", "dtype", "device", "path_col", "id_col", "limit", "timeout"):
        value = getattr(recipe, name)
        flags[f"--{name.replace('_', '-')}"] = None if value == getattr(default, name) else value
    flags["--num-workers"] = recipe.workers
    for flag, value in flags.items():
        if value is not None:
            words += [flag, exact(value) if isinstance(value, float) else str(value)]
    for key, value in recipe.options.items():
        words += ["--set", f"{key}={value}"]
    return shlex.join(words)


def _document(recipe: TuneRecipe, found: Found) -> dict[str, Any]:
    choice, board, chosen = found.choice, found.board, found.chosen
    kept = 1.0 if choice.setting is None else board.share(choice.setting)
    seconds = board.trials.spent
    return {
        "chosen": {"method": "none"} if chosen is None else chosen.to_json(),
        "certain": choice.certain,
        "retain": recipe.retain,
        "confidence": recipe.confidence,
        "qa": None if recipe.qa is None else absolute(recipe.qa),
        "measure": "right answers kept" if found.labelled else "agreement with all tokens",
        "retained": 1.0 if choice.retained is None else round(choice.retained.share, 6),
        "ci": None if choice.retained is None else _bounds(choice.retained),
        "kept_share": round(kept, 6),
        "advice": _advice(recipe, found),
        "inputs": found.inputs,
        "sample": len(board.seen[0]),
        "failed": found.failed,
        "search_items": choice.search_items,
        "test_items": choice.test_items,
        "rounds": [dict(zip(("items", "settings", "methods_left"), counts)) for counts in choice.rounds],
        "table": [_row(found, number) for number in range(len(found.tried))],
        "out_of_time": choice.out_of_time,
        "encode_seconds": round(found.encode_seconds, 3),
        "answer_seconds": round(seconds, 3),
        "ratio": round(seconds / found.encode_seconds, 3) if found.encode_seconds else None,
        "seed": recipe.seed,
    }


def _row(found: Found, number: int) -> dict[str, Any]:
    """A setting: what it kept over all its items, and what it retained, on the test items if it was tested."""
    choice, board, candidate = found.choice, found.board, found.tried[number]
    result = choice.tested.get(number)
    items = int(board.seen[number].sum())
    if result is not None:
        items = int(board.seen[number, _test_items(found)].sum())
    elif items:
        result = board.estimate(number, 0.9)
    seen = bool(board.seen[number].any()) and number not in board.impossible
    return {
        "setting": candidate.name,
        **candidate.to_json(),
        "items": items,
        "questions": result.asked if result else 0,
        "kept_share": round(board.share(number), 6) if seen else None,
        "kept_tokens": round(float(board.kept[number, board.seen[number]].mean()), 2) if seen else None,
        "retained": round(result.share, 6) if seen and result and result.asked else None,
        "ci": _bounds(result) if seen and result and result.asked else None,
        "tested": number in choice.tested,
        "verdict": _verdict(found, number),
    }


def _verdict(found: Found, number: int) -> str:
    choice = found.choice
    if number == choice.setting:
        return "chosen" if choice.certain else "chosen, uncertain"
    if number in choice.tested:
        sure = choice.tested[number].low >= found.retain
        return "tested: sure, but larger" if sure else "tested: not sure to keep enough"
    if not found.board.seen[number].any():
        return "not tried"
    verdict = choice.verdicts.get(number, LARGER)
    chosen = 1.0 if choice.setting is None else found.board.share(choice.setting)
    if found.board.share(number) > chosen:
        return verdict
    # What promised fewer tokens still has failed since, or time ran out.
    return verdict.replace(LARGER, "not tested, others promised more")


def _test_items(found: Found) -> list[int]:
    """Items that the search was not to see."""
    return split(len(found.board.seen[0]))[1]


def _bounds(result: Retained) -> list[float]:
    return [round(result.low, 6), round(result.high, 6)]


def _advice(recipe: TuneRecipe, found: Found) -> str | None:
    """What would make an uncertain choice certain."""
    choice = found.choice
    if choice.certain:
        return None
    longer = "raise --answer-time, for time ran out; then " if choice.out_of_time else ""
    if choice.setting is None:
        return f"{longer}keep everything, or add larger --keep: nothing that was tried keeps {recipe.retain:g}"
    needed = _needed(recipe, found)
    if needed is None:
        return f"{longer}add larger --keep: it keeps hardly more than {recipe.retain:g}, which no sample can tell"
    if needed <= len(found.board.seen[0]):
        return "raise --answer-time (0: no limit), for time ran out"
    if needed > found.inputs:
        return f"{longer}add items with questions: about {needed} would be enough to be sure, there are {found.inputs}"
    return f"{longer}use --sample {needed} to be sure, it was {len(found.board.seen[0])}"


def _needed(recipe: TuneRecipe, found: Found) -> int | None:
    """The sample whose tests the choice would pass if it went on as it did; None where no reasonable one is enough."""
    board, setting = found.board, found.choice.setting
    assert setting is not None
    items = [item for item in _test_items(found) if board.seen[setting, item]]
    asked, lost = board.asked[setting, items], board.lost[setting, items]
    sample = 8
    while sample <= LARGEST_SAMPLE:
        times = len(split(sample)[1]) / len(items)
        if retained(asked, lost, board.likeness, recipe.confidence, times).low >= recipe.retain:
            return sample
        sample = math.ceil(sample * 1.1 / 8) * 8
    return None
