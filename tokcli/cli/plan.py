"""`tokcli plan`: what compressing would cost, before it is begun."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tokcli.cli.guards import FileTimeout
from tokcli.cli.options import (
    METHOD,
    Device,
    Dtype,
    Fps,
    IdCol,
    Inputs,
    Json,
    MaxFrames,
    Model,
    NumFrames,
    PathCol,
    Quiet,
    Resize,
    Workers,
    sampling,
)
from tokcli.cli.output import counted, human_bytes, human_seconds, plain, results, share, show, table
from tokcli.cli.summary import budget_note

if TYPE_CHECKING:
    from tokcli.pipeline.plan import Estimate, Plan


def plan(
    inputs: Inputs,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            metavar="M@B",
            help="Method, @ share or number of tokens, :option=value,...; repeatable. (default: dtd)",
            rich_help_panel=METHOD,
        ),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="How many items to try, of all sizes.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the draw, and of methods that draw.")] = 0,
    model: Model = "nano",
    dtype: Dtype = "auto",
    device: Device = "auto",
    tokens_dtype: Annotated[
        str,
        typer.Option(
            "--codec", "--tokens-dtype", help="How to store, as for tokcli compress.", rich_help_panel="Model"
        ),
    ] = "auto",
    fps: Fps = 1.0,
    num_frames: NumFrames = None,
    max_frames: MaxFrames = None,
    resize: Resize = "hf",
    path_col: PathCol = "path",
    id_col: IdCol = None,
    workers: Workers = None,
    timeout: FileTimeout = 60.0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Say what compressing would give and take: tokens, bytes, hours.

    Compresses a few of the inputs in a temporary folder, with each method in
    turn, and scales up. The inputs are cut into parts of about one size; one
    item drawn from each stands for its part, by bytes. In brackets: where the
    truth is in about 9 of 10 cases.

    [dim]tokcli plan videos/ --method dtd --model ~/Qwen2.5-VL-7B-Instruct[/dim]
    [dim]tokcli plan list.csv -m dtd -m evs@0.2 -m dtd,uniform@0.1 --sample 20[/dim]

    With --json: items, source_bytes, unusable, sample, failed, and under
    methods for each: codec, over_budget (of the items tried, as of compress), and
    kept_tokens, source_tokens, cache_bytes, hours, all with value, low and high.
    """
    from tokcli.checking import check
    from tokcli.cli.display import ProgressDisplay
    from tokcli.cli.stopping import stoppable
    from tokcli.pipeline.plan import plan as run
    from tokcli.recipe import CompressRecipe

    values = {
        "inputs": inputs,
        "output": "plan",
        "seed": seed,
        "model": model,
        "dtype": dtype,
        "device": device,
        "tokens_dtype": tokens_dtype,
        "sampling": sampling(fps, num_frames, max_frames),
        "resize": resize,
        "path_col": path_col,
        "id_col": id_col,
        "workers": workers,
        "timeout": timeout,
    }
    recipe: CompressRecipe = check(CompressRecipe, values, "plan", flags=True)
    with stoppable(), ProgressDisplay(quiet, notes=False) as display:
        found = run(recipe, method or ["dtd"], sample=sample, observer=display)
    show(_document(found), as_json, lambda: _draw(found))
    raise typer.Exit(3 if found.failed else 0)


def _document(found: Plan) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(found)


def _draw(found: Plan) -> None:
    results.print(
        f"{counted(found.items, 'input')}, {human_bytes(found.source_bytes)}; from {len(found.sample)} of them"
        + (f"; {found.unusable:,} cannot be opened" if found.unusable else "")
    )
    rows = []
    for one in found.methods:
        rows.append(
            (
                one.method,
                _range(one.kept_tokens, lambda count: f"{count:,.0f}"),
                share(one.kept_tokens.value, one.source_tokens.value),
                one.codec,
                _range(one.cache_bytes, human_bytes),
                _range(one.hours, lambda hours: human_seconds(hours * 3600)),
            )
        )
    columns = ("method", "tokens", "kept", "codec", "cache", "time")
    results.print(table("", columns, rows, right=columns[1:]))
    for one in found.methods:
        if one.over_budget:
            results.print(escape(f"{one.method}: of those tried, {budget_note(one.over_budget)}"), style="yellow")
    for item_id in found.failed:
        results.print(f"[yellow]failed[/yellow]: {escape(plain(item_id))}: so may others like it")


def _range(estimate: Estimate, show_one: Callable[[float], str]) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{show_one(estimate.value)} (from one item)"
    if estimate.low == estimate.high:
        return show_one(estimate.value)
    return f"{show_one(estimate.value)} ({show_one(estimate.low)} to {show_one(estimate.high)})"
