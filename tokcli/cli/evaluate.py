"""`tokcli eval`: parse, run, draw."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from tokcli.cli.guards import FileTimeout
from tokcli.cli.options import (
    ASKING,
    RUNNING,
    WHAT,
    AllowErrors,
    Device,
    Dtype,
    Fps,
    IdCol,
    Importance,
    Json,
    Limit,
    MaxFrames,
    MethodOptions,
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
from tokcli.cli.output import if_read, note, print_json

if TYPE_CHECKING:
    from tokcli.evaluate.evaluate import Evaluation
    from tokcli.recipe import EvalRecipe


def evaluate(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT", help="Media: files, folders, globs, manifests. Or caches, each a setting."),
    ],
    qa: Annotated[
        str | None,
        typer.Option(
            help="Questions, .jsonl: question, answer, options, video, as lmms-eval's tasks have it.",
            rich_help_panel=ASKING,
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="Question to every item, for --against full.", rich_help_panel=ASKING),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="full: no right answers needed, compare with all tokens.", rich_help_panel=ASKING),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of an open answer at most.", rich_help_panel=ASKING)] = 16,
    system: System = None,
    positions: Positions = "original",
    methods: Annotated[
        str | None,
        typer.Option(
            help="Methods, a,b; with options dtd:threshold=0.5;criterion=pixel; in a row a+b. (default: dtd,evs)",
            rich_help_panel=WHAT,
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="Shares of tokens to keep. (default: 1,0.5,0.25,0.1,0.05)", rich_help_panel=WHAT),
    ] = None,
    settings: MethodOptions = None,
    importance: Importance = None,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for caches, outcomes and results.")] = "eval",
    model: Annotated[
        str | None,
        typer.Option(
            help="'nano', a checkpoint folder, or a hub name. (default: nano, or the caches' own)",
            rich_help_panel="Model",
        ),
    ] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    fps: Fps = 1.0,
    num_frames: NumFrames = None,
    max_frames: MaxFrames = None,
    resize: Resize = "hf",
    limit: Limit = None,
    path_col: PathCol = "path",
    id_col: IdCol = None,
    seed: Annotated[
        int, typer.Option(help="Seed of methods that draw and of the intervals.", rich_help_panel=RUNNING)
    ] = 0,
    bootstrap: Annotated[
        int, typer.Option(help="Resamplings for the confidence intervals.", rich_help_panel=RUNNING)
    ] = 1000,
    plots: Annotated[bool, typer.Option(help="Draw PNG and SVG plots.", rich_help_panel=RUNNING)] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete what -o holds and begin anew.", rich_help_panel=RUNNING)
    ] = False,
    retry_errors: RetryErrors = False,
    allow_errors: AllowErrors = False,
    workers: Workers = None,
    timeout: FileTimeout = 60.0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure how many answers compression keeps.

    Decodes and encodes every item once, then asks the questions of all tokens, of what each
    method keeps at each budget, and of the baselines random, uniform, pool2d and downsample.

    [dim]tokcli eval clips --qa clips/qa.jsonl --methods dtd,evs --keep 0.5,0.25,0.1[/dim]
    [dim]tokcli eval clips --qa qa.jsonl --methods dtd:threshold=0.5,dtd:reference=kept[/dim]
    [dim]tokcli eval videos --prompt "What is it?" --against full --model ~/Qwen2-VL[/dim]
    [dim]tokcli eval cache-full cache-dtd --qa qa.jsonl[/dim]

    In the table, right: % of questions answered right, of all and by kind; full: from all tokens;
    blind: without pictures; guess: the usual answer about other items, no model; chance: by lot.

    Writes results.json, results.parquet and plots to -o, and goes on where it was stopped.
    With --json it prints what results.json holds: a row for each setting and kind of question
    (kind null: all together) with method, keep, accuracy, ci, diff, diff_ci, retained, n,
    kept_tokens, source_tokens, cache_bytes, source_bytes and seconds.
    """
    from tokcli.checking import check
    from tokcli.evaluate.settings import DEFAULT_METHODS
    from tokcli.recipe import EvalRecipe

    named = listed(methods)
    values = {
        "inputs": inputs,
        "qa": qa,
        "prompt": prompt or [],
        "methods": named,
        "keep": listed(keep),
        "options": method_options(settings, importance, named or DEFAULT_METHODS, example="dtd.reference=kept"),
        "output": output,
        "model": model,
        "against": against,
        "seed": seed,
        "bootstrap": bootstrap,
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
        "plots": plots,
        "overwrite": overwrite,
        "retry_errors": retry_errors,
        "allow_errors": allow_errors,
        "workers": workers,
        "timeout": timeout,
    }
    recipe: EvalRecipe = check(EvalRecipe, values, "eval", flags=True)
    raise typer.Exit(run_eval(recipe, quiet, as_json))


def run_eval(recipe: EvalRecipe, quiet: bool, as_json: bool) -> int:
    """Run with progress on stderr and the table on stdout, return the exit code; shared with `tokcli run`."""
    from tokcli.cli.eval_display import EvalDisplay
    from tokcli.cli.eval_table import draw_results
    from tokcli.cli.stopping import stoppable
    from tokcli.evaluate.evaluate import evaluate as run

    with stoppable():
        evaluation = run(recipe, EvalDisplay(quiet))
        if recipe.plots:
            _write_plots(evaluation, quiet)
    with if_read():
        if as_json:
            print_json(evaluation.document)
        elif not quiet:
            draw_results(evaluation)
    return 3 if evaluation.failed and not recipe.allow_errors else 0


def _write_plots(evaluation: Evaluation, quiet: bool) -> None:
    if find_spec("matplotlib") is None:
        if not quiet:
            note("no plots without matplotlib: pip install 'tokcli[report]'")
        return
    from tokcli.report import write_plots

    write_plots(evaluation.rows, evaluation.folder)
