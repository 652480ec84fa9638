"""`tokcli infer`: parse, run, print answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tokcli.cli.options import Device, Dtype, Json, Quiet, key_values
from tokcli.cli.output import counted, human_seconds, if_read, note, notices, plain, print_json, results, share, warn

if TYPE_CHECKING:
    from tokcli.pipeline.infer import InferSummary
    from tokcli.recipe import InferRecipe


ITEMS, BUDGET, WORDS, MODEL, RUNNING = "Items", "Tokens read", "Answers", "Model", "Running"


def infer(
    cache: Annotated[str, typer.Argument(metavar="CACHE", help="Folder that `tokcli compress` wrote.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="Question to every item; {label} stands for its column; repeatable."),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="File of prompts: one a line; or .jsonl with 'question', or 'messages' for several turns, and, for "
            "one item only, 'id'; or a conversation, .json."
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Write rows to a .jsonl, .csv or .parquet file.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            help="Ask only items for which this SQL condition on their columns is true.", rich_help_panel=ITEMS
        ),
    ] = None,
    ids: Annotated[
        list[str] | None,
        typer.Option(
            "--ids", "--id", metavar="A,B|FILE", help="Ask only these items; repeatable.", rich_help_panel=ITEMS
        ),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(help="Ask only N items, drawn by --seed.", metavar="N", rich_help_panel=ITEMS)
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Ask only the first N items.", rich_help_panel=ITEMS)] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Put items with the same value into one prompt together.", rich_help_panel=ITEMS
        ),
    ] = None,
    keep: Annotated[
        float | None, typer.Option(help="Read only this share of each item's tokens.", rich_help_panel=BUDGET)
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Read at most this many tokens of each item.", rich_help_panel=BUDGET)
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", help="Method that chooses them. (default: uniform)", rich_help_panel=BUDGET),
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="The method's own threshold.", rich_help_panel=BUDGET)] = None,
    select: Annotated[
        str | None,
        typer.Option(help="Choose them for each prompt: text_cosine; after --method if given.", rich_help_panel=BUDGET),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="K=V", help="An option of method or selector; repeatable.", rich_help_panel=BUDGET
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.", rich_help_panel=WORDS)] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer at most.", rich_help_panel=WORDS)] = 64,
    schema: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="JSON Schema that every answer keeps to.", rich_help_panel=WORDS),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="0: the likeliest tokens; above: drawn.", rich_help_panel=WORDS)
    ] = 0.0,
    top_p: Annotated[
        float, typer.Option(help="Draw among the likeliest that together have this probability.", rich_help_panel=WORDS)
    ] = 1.0,
    top_k: Annotated[
        int, typer.Option(help="Draw among this many likeliest tokens; 0: all.", rich_help_panel=WORDS)
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.", rich_help_panel=WORDS)] = 0,
    model: Annotated[
        str | None, typer.Option(help="Another checkpoint with the same vision tower.", rich_help_panel=MODEL)
    ] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attn: Annotated[
        str | None,
        typer.Option(help="Attention: sdpa, eager or flash_attention_2 (default: the model's).", rich_help_panel=MODEL),
    ] = None,
    positions: Annotated[
        str,
        typer.Option(help="Position scheme: original (as trained), hf, compact.", rich_help_panel=MODEL),
    ] = "original",
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Questions in one batch, if memory holds them. (default: by device)", rich_help_panel=RUNNING
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Drop the answers that -o holds.", rich_help_panel=RUNNING)
    ] = False,
    retry_errors: Annotated[
        bool,
        typer.Option("--retry-errors", help="Ask again what failed in an earlier run.", rich_help_panel=RUNNING),
    ] = False,
    allow_errors: Annotated[
        bool, typer.Option("--allow-errors", help="End with 0 though questions failed.", rich_help_panel=RUNNING)
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Ask the language model about the items of a cache.

    No decoding, no vision tower. With -o, a run that was stopped goes on where it was.
    Many prompts about one item compute it once.

    [dim]tokcli infer cache --prompt "What happens here?"[/dim]
    [dim]tokcli infer cache --prompts qa.jsonl -o answers.parquet[/dim]
    [dim]tokcli infer cache -p "Is there a {label} here?" --where "duration_s > 10"[/dim]
    [dim]tokcli infer cache -p "Describe it." --schema clip.schema.json -o clips.jsonl[/dim]
    [dim]tokcli infer cache -p "What is red?" --keep 0.1 --method evs[/dim]
    [dim]tokcli infer cache -p "Write a caption." --temperature 0.7 --sample 100[/dim]

    With --json every answer is an object on a line of its own:
    id, prompt, answer, visual_tokens, seconds, error and more.
    Ends with 3 when questions failed: their rows have an error in place of an answer.
    """
    from tokcli.checking import check
    from tokcli.recipe import InferRecipe

    values = {
        "cache": cache,
        "prompt": prompt or [],
        "prompts": prompts,
        "output": output,
        "where": where,
        "ids": ids or [],
        "sample": sample,
        "limit": limit,
        "group_by": group_by,
        "keep": keep,
        "max_tokens": max_tokens,
        "method": method,
        "threshold": threshold,
        "select": select,
        "options": key_values(settings or [], example="evs.variant=official"),
        "system": system,
        "max_new_tokens": max_new_tokens,
        "schema_file": schema,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "seed": seed,
        "model": model,
        "dtype": dtype,
        "device": device,
        "attn": attn,
        "positions": positions,
        "batch_size": batch_size,
        "overwrite": overwrite,
        "retry_errors": retry_errors,
        "allow_errors": allow_errors,
    }
    recipe: InferRecipe = check(InferRecipe, values, "infer", flags=True)
    raise typer.Exit(run_infer(recipe, quiet, as_json))


def run_infer(recipe: InferRecipe, quiet: bool, as_json: bool) -> int:
    """Run with rows on stdout (or in the recipe's output) and counts on stderr; shared with `tokcli run`.

    Returns the exit code.
    """
    from tokcli.cli.stopping import check_stop, stoppable
    from tokcli.pipeline.infer import infer as run

    def begin(total: int, done: int, warnings: list[str]) -> None:
        for text in warnings:
            warn(text)
        if not quiet:
            note(f"{counted(total, 'question')}: {done} answered already, {total - done} to do")

    show_rows = as_json or recipe.output is None
    show = print_json if as_json else _print_row

    def row(values: dict[str, Any]) -> None:
        check_stop()
        if show_rows and recipe.output is None:
            show(values)  # as long as somebody reads: they go nowhere else
        elif show_rows:
            with if_read():
                show(values)

    with stoppable():
        summary = run(recipe, on_row=row, on_begin=begin)
    if not quiet:
        _print_summary(summary, recipe)
    return 3 if summary.failed and not recipe.allow_errors else 0


def _print_row(row: dict[str, Any]) -> None:
    if row["error"] is not None:
        said = "" if row["answer"] is None else f" {escape(row['answer'])}"
        results.print(
            f"[dim]{escape(plain(row['id']))}[/dim]  {escape(row['prompt'])}{said} [red]{escape(row['error'])}[/red]"
        )
        return
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
    notices.print(f"{counted(summary.answered, 'answer')} in {human_seconds(summary.seconds)}{each}", highlight=False)
    if summary.answered:
        kept = share(summary.visual_tokens, summary.source_tokens)
        notices.print(f"from {counted(summary.visual_tokens, 'visual token')}, {kept} of {summary.source_tokens:,}")
    if summary.right is not None:
        notices.print(f"{summary.right} of {summary.expected} right ({share(summary.right, summary.expected)})")
    if summary.failed:
        notices.print(f"[yellow]{summary.failed} failed[/yellow]: the column 'error' of their rows says why")
    if recipe.output:
        notices.print(f"written to {escape(recipe.output)}")
