"""`tokcli render`: synthetic clips with questions, as real files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from tokcli.cli.options import Json, Quiet
from tokcli.cli.output import counted, human_bytes, human_seconds, note, plain, results, show

if TYPE_CHECKING:
    from tokcli.pipeline.render import RenderSummary
    from tokcli.recipe import RenderRecipe


def render(
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the clips and qa.jsonl.")],
    kind: Annotated[str, typer.Option(help="What is shown, 'a,b' for kinds in turn, 'all' for every kind.")] = "static",
    count: Annotated[int, typer.Option(help="Number of files.")] = 20,
    seed: Annotated[int, typer.Option(help="The same seed gives the same clips.")] = 0,
    format: Annotated[str, typer.Option(help="mp4, webm, mkv, png, or mixed.")] = "mixed",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write synthetic clips with questions.

    Coloured shapes that move, as real video files, and qa.jsonl with questions and
    answers. The bundled model `nano` understands these and nothing else.

    [bold]static[/bold]: a camera that stands still; pan, shake, noisy: one that does not, or sees badly
    [bold]small[/bold]: objects of a token or two; still: pictures; text: digits, letters, codes
    [bold]cut, fade, return[/bold]: shots that change, turn into one another, come back
    [bold]drift[/bold]: one slow change, below what two frames show; counter: a digit that counts
    [bold]needle[/bold]: a character for 0.3 seconds in up to two minutes

    [dim]tokcli render -o clips --count 100 --seed 7[/dim]
    [dim]tokcli render -o clips --kind cut,drift,needle --count 30[/dim]
    """
    from tokcli.checking import check
    from tokcli.recipe import RenderRecipe

    values = {"output": output, "kind": kind, "count": count, "seed": seed, "format": format}
    recipe: RenderRecipe = check(RenderRecipe, values, "render", flags=True)
    run_render(recipe, quiet, as_json)


def run_render(recipe: RenderRecipe, quiet: bool, as_json: bool) -> None:
    """Render and report; shared with `tokcli run`."""
    from tokcli.pipeline.render import check_render
    from tokcli.pipeline.render import render as run

    check_render(recipe)
    if not quiet:
        note(f"rendering {counted(recipe.count, 'file')} of kind {recipe.kind}, seed {recipe.seed}")
    summary = run(recipe)
    show(vars(summary), as_json, lambda: _draw(summary))


def _draw(summary: RenderSummary) -> None:
    results.print(
        f"[bold]{escape(plain(summary.output))}[/bold]: {counted(summary.files, 'file')},"
        f" {human_seconds(summary.media_seconds)} of video, {human_bytes(summary.bytes)},"
        f" {counted(summary.questions, 'question')} in qa.jsonl"
    )
