"""`tokcli tune`: parse, run, draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tokcli.cli.guards import FileTimeout
from tokcli.cli.options import (
    ASKING,
    RUNNING,
    SAMPLING,
    WHAT,
    Device,
    Dtype,
    Fps,
    IdCol,
    Importance,
    Inputs,
    Json,
    Limit,
    MaxFrames,
    MethodOptions,
    Model,
    NumFrames,
    PathCol,
    Positions,
    Quiet,
    Resize,
    RetryErrors,
    System,
    Workers,
    listed,
    method_options,
    sampling,
)
from tokcli.cli.output import print_json
from tokcli.errors import UsageError

if TYPE_CHECKING:
    from tokcli.evaluate.tune_report import Tuning
    from tokcli.recipe import TuneRecipe

GOAL = "What is enough"


def tune(
    inputs: Inputs,
    retain: Annotated[float, typer.Option(help="Share of the answers to keep, below 1.", rich_help_panel=GOAL)] = 0.98,
    confidence: Annotated[
        float, typer.Option(help="How sure to be of it: a one-sided bound.", rich_help_panel=GOAL)
    ] = 0.9,
    qa: Annotated[
        str | None,
        typer.Option(help="Questions, .jsonl, with or without right answers, as for eval.", rich_help_panel=ASKING),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="Question to every item instead; repeatable.", rich_help_panel=ASKING),
    ] = None,
    questions: Annotated[
        int, typer.Option(help="Questions about each item at most, drawn at random.", rich_help_panel=ASKING)
    ] = 6,
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer at most.", rich_help_panel=ASKING)] = 16,
    system: System = None,
    positions: Positions = "original",
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods, a,b, as for eval. (default: dtd, dtd:reference=kept, evs, uniform, pool2d)",
            rich_help_panel=WHAT,
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="Shares of tokens. (default: 0.75,0.5,0.35,0.25,0.15,0.1,0.05)", rich_help_panel=WHAT),
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(help="For methods that take one. (default: 0.9,0.7,0.5,0.3)", rich_help_panel=WHAT),
    ] = None,
    settings: MethodOptions = None,
    importance: Importance = None,
    sample: Annotated[
        int, typer.Option(help="Items to look at, drawn at random; all, if there are fewer.", rich_help_panel=SAMPLING)
    ] = 128,
    seed: Annotated[
        int, typer.Option(help="Seed of the sample and of methods that draw.", rich_help_panel=SAMPLING)
    ] = 0,
    fps: Fps = 1.0,
    num_frames: NumFrames = None,
    max_frames: MaxFrames = None,
    resize: Resize = "hf",
    path_col: PathCol = "path",
    id_col: IdCol = None,
    limit: Limit = None,
    model: Model = "nano",
    dtype: Dtype = "auto",
    device: Device = "auto",
    output: Annotated[
        str, typer.Option("--output", "-o", help="Folder for the encoded sample and what was tried.")
    ] = "tune",
    recipe: Annotated[
        str | None, typer.Option(help="Where to write the recipe. (default: recipe.yaml in the folder of -o)")
    ] = None,
    cache: Annotated[str, typer.Option(help="The cache that the recipe and the command are to make.")] = "cache",
    answer_time: Annotated[
        float,
        typer.Option(
            help="Seconds for methods and answers, in times of the encoding of the sample; 0: no limit.",
            rich_help_panel=RUNNING,
        ),
    ] = 1.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Forget what -o holds and begin anew.", rich_help_panel=RUNNING)
    ] = False,
    retry_errors: RetryErrors = False,
    workers: Workers = None,
    timeout: FileTimeout = 60.0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Find the smallest setting that keeps enough answers.

    Encodes a random sample once, drops settings on few items, tests what is left on
    items that the search has not seen, and takes the one with the fewest tokens that is
    sure to keep --retain of the answers: of those that are right with all tokens, or,
    without right answers, of all, compared with what the model says from all tokens.

    [dim]tokcli tune clips --qa clips/qa.jsonl[/dim]
    [dim]tokcli tune videos --model ~/Qwen2.5-VL --prompt "What happens?" --retain 0.95[/dim]
    [dim]tokcli tune clips --qa clips/qa.jsonl --methods dtd,evs --keep 0.5,0.1[/dim]

    Prints the choice as a command and writes a recipe for `tokcli run`. With --json:
    chosen, certain, retained, ci, kept_share, table, command, recipe, encode_seconds,
    answer_seconds. Goes on where it was stopped. More in docs/tuning.md.
    """
    from tokcli.checking import check
    from tokcli.evaluate.tune_settings import DEFAULT_METHODS
    from tokcli.recipe import TuneRecipe

    named = listed(methods)
    values = {
        "inputs": inputs,
        "qa": qa,
        "prompt": prompt or [],
        "retain": retain,
        "confidence": confidence,
        "methods": named,
        "keep": _numbers("--keep", keep),
        "threshold": _numbers("--threshold", threshold),
        "options": method_options(settings, importance, named or DEFAULT_METHODS, example="dtd.reference=kept"),
        "sample": sample,
        "questions": questions,
        "answer_time": answer_time,
        "output": output,
        "recipe": recipe,
        "cache": cache,
        "model": model,
        "seed": seed,
        "positions": positions,
        "max_new_tokens": max_new_tokens,
        "system": system,
        "sampling": sampling(fps, num_frames, max_frames),
        "resize": resize,
        "dtype": dtype,
        "device": device,
        "path_col": path_col,
        "id_col": id_col,
        "limit": limit,
        "overwrite": overwrite,
        "retry_errors": retry_errors,
        "workers": workers,
        "timeout": timeout,
    }
    checked: TuneRecipe = check(TuneRecipe, values, "tune", flags=True)
    tuning = run_tune(checked, quiet)
    if as_json:
        print_json(tuning.document)
    elif not quiet:
        from tokcli.cli.tune_display import draw_tuning

        draw_tuning(tuning)


def run_tune(recipe: TuneRecipe, quiet: bool) -> Tuning:
    """Run with progress on stderr; shared with `tokcli compress --method auto`."""
    from tokcli.cli.stopping import stoppable
    from tokcli.cli.tune_display import TuneDisplay
    from tokcli.evaluate.tune import tune as run

    with stoppable():
        return run(recipe, TuneDisplay(quiet))


def _numbers(flag: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{flag} {text!r}: write numbers with commas between, for example 0.5,0.25") from None
