"""`tokcli infer`: parse, run, print answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tokcli.cli.options import Device, Dtype, Json, Quiet
from tokcli.cli.output import human_seconds, note, notices, plain, print_json, results, share, warn

if TYPE_CHECKING:
    from tokcli.pipeline.infer import InferSummary
    from tokcli.recipe import InferRecipe


def infer(
    cache: Annotated[str, typer.Argument(metavar="CACHE", help="Folder that `tokcli compress` wrote.")],
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="Question to every item; repeatable.")
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(help="File of prompts: one a line, or .jsonl with 'question' and, for one item only, 'id'."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Write rows to a .jsonl, .csv or .parquet file.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Ask only the first N items.")] = None,
    ids: Annotated[list[str] | None, typer.Option("--id", help="Ask only this item; repeatable.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Another checkpoint with the same vision tower.", rich_help_panel="Model")
    ] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    system: Annotated[str | None, typer.Option(help="System prompt.", rich_help_panel="Model")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer at most.", rich_help_panel="Model")] = 64,
    batch_size: Annotated[int, typer.Option(help="Questions in one batch.", rich_help_panel="Model")] = 8,
    positions: Annotated[
        str,
        typer.Option(help="Position scheme: original (as trained), hf, compact.", rich_help_panel="Model"),
    ] = "original",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Drop the answers that -o holds.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Ask the language model about the items of a cache.

    No decoding, no vision tower. With -o, a run that was stopped goes on where it was.

    [dim]tokcli infer cache --prompt "What happens here?"[/dim]
    [dim]tokcli infer cache --prompts qa.jsonl -o answers.parquet[/dim]

    With --json every answer is an object on a line of its own:
    id, prompt, answer, visual_tokens, seconds and more.
    """
    from tokcli.recipe import InferRecipe, check

    values = {
        "cache": cache,
        "prompt": prompt or [],
        "prompts": prompts,
        "output": output,
        "model": model,
        "system": system,
        "max_new_tokens": max_new_tokens,
        "batch_size": batch_size,
        "positions": positions,
        "dtype": dtype,
        "device": device,
        "limit": limit,
        "ids": ids or [],
        "overwrite": overwrite,
    }
    recipe: InferRecipe = check(InferRecipe, values, "infer")
    run_infer(recipe, quiet, as_json)


def run_infer(recipe: InferRecipe, quiet: bool, as_json: bool) -> InferSummary:
    """Run with rows on stdout (or in the recipe's output) and counts on stderr; shared with `tokcli run`."""
    from tokcli.cli.stopping import check_stop, stoppable
    from tokcli.pipeline.infer import infer as run

    def begin(total: int, done: int, warnings: list[str]) -> None:
        for text in warnings:
            warn(text)
        if not quiet:
            note(f"{total} questions: {done} answered already, {total - done} to do")

    show_rows = as_json or recipe.output is None
    show = print_json if as_json else _print_row

    def row(values: dict[str, Any]) -> None:
        check_stop()
        if show_rows:
            show(values)

    with stoppable():
        summary = run(recipe, on_row=row, on_begin=begin)
    if not quiet:
        _print_summary(summary, recipe)
    return summary


def _print_row(row: dict[str, Any]) -> None:
    mark = (
        ""
        if row["right"] is None
        else "[green]ok[/green] "
        if row["right"]
        else f"[red]not {escape(str(row['expected']))}[/red] "
    )
    results.print(
        f"[dim]{escape(plain(row['id']))}[/dim]  {escape(row['prompt'])} [bold]{escape(row['answer'])}[/bold] {mark}"
        f"[dim]({row['visual_tokens']} of {row['source_tokens']} tokens, {row['seconds'] * 1000:.0f} ms)[/dim]"
    )


def _print_summary(summary: InferSummary, recipe: InferRecipe) -> None:
    each = f", {human_seconds(summary.seconds / summary.answered)} each" if summary.answered else ""
    notices.print(f"{summary.answered} answers in {human_seconds(summary.seconds)}{each}", highlight=False)
    if summary.answered:
        kept = share(summary.visual_tokens, summary.source_tokens)
        notices.print(f"from {summary.visual_tokens:,} visual tokens, {kept} of {summary.source_tokens:,}")
    if summary.right is not None:
        notices.print(f"{summary.right} of {summary.expected} right ({share(summary.right, summary.expected)})")
    if recipe.output:
        notices.print(f"written to {escape(recipe.output)}")
