"""`tokcli derive`: parse, run, report."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from tokcli.cli.options import (
    METHOD,
    RUNNING,
    AllowErrors,
    Also,
    Json,
    Keep,
    MaxTokens,
    OneMethodImportance,
    OneMethodOptions,
    OnError,
    Quiet,
    Threshold,
    method_options,
)
from tokcli.cli.summary import make_caches

if TYPE_CHECKING:
    from tokcli.recipe import DeriveRecipe


def derive(
    cache: Annotated[str, typer.Argument(metavar="CACHE", help="A cache with all tokens, or with more than wanted.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the new cache.")],
    method: Annotated[
        str, typer.Option("--method", "-m", help="Method, or several: 'a,b'.", rich_help_panel=METHOD)
    ] = "dtd",
    keep: Keep = None,
    max_tokens: MaxTokens = None,
    threshold: Threshold = None,
    settings: OneMethodOptions = None,
    importance: OneMethodImportance = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of methods that draw (default: CACHE's).", rich_help_panel=METHOD)
    ] = None,
    also: Also = None,
    tokens_dtype: Annotated[
        str,
        typer.Option(
            "--codec",
            "--tokens-dtype",
            help="How tokens are stored: auto (int8; as in CACHE with --method none, or if it stores codes), exact (as "
            "CACHE gives them), float16, bfloat16, float32; smaller, with loss: int8, int8c, fp8, int4, pq4, pq8.",
            rich_help_panel=METHOD,
        ),
    ] = "auto",
    codebook: Annotated[
        str | None,
        typer.Option(help="With --codec pq4 or pq8: take the codebook of this cache.", rich_help_panel=METHOD),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N items.", rich_help_panel=RUNNING)] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Delete an existing output and begin anew.", rich_help_panel=RUNNING)
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Drop items that are gone from CACHE.", rich_help_panel=RUNNING)
    ] = False,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Try items again that the method failed on.", rich_help_panel=RUNNING)
    ] = False,
    on_error: OnError = "skip",
    allow_errors: AllowErrors = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make another token cache from one that has all tokens, or more than wanted.

    No media and no vision tower: the methods run on the stored tokens, and the result is the
    same as that of compressing the media. Run it again to go on, or to add new items of CACHE;
    items that are gone from it are named, and stay until --prune drops them.

    [dim]tokcli compress videos/ -o full --method none[/dim]
    [dim]tokcli derive full -o small --method dtd --keep 0.1[/dim]
    [dim]tokcli derive full -o a --method evs --keep 0.2 --also dtd@0.1=b[/dim]

    From a cache of another method the new one continues: of a cache made with dtd,
    --method uniform gives what compressing with --method dtd,uniform would.

    Methods that look at more than tokens need their signals in CACHE:

    [dim]tokcli compress videos/ -o full --method none --keep-signals pixel_change[/dim]

    With --json the last line of stdout is the object that `tokcli compress` prints.
    """
    from tokcli.checking import check
    from tokcli.recipe import DeriveRecipe

    values = {
        "cache": cache,
        "output": output,
        "method": method,
        "keep": keep,
        "max_tokens": max_tokens,
        "threshold": threshold,
        "options": method_options(settings, importance, method.split(",")),
        "seed": seed,
        "also": also or [],
        "tokens_dtype": tokens_dtype,
        "codebook": codebook,
        "limit": limit,
        "overwrite": overwrite,
        "prune": prune,
        "retry_errors": retry_errors,
        "on_error": on_error,
        "allow_errors": allow_errors,
    }
    recipe: DeriveRecipe = check(DeriveRecipe, values, "derive", flags=True)
    raise typer.Exit(run_derive(recipe, quiet, as_json))


def run_derive(recipe: DeriveRecipe, quiet: bool, as_json: bool) -> int:
    """Run, report, and return the exit code; shared with `tokcli run`."""
    from tokcli.pipeline.derive import derive as run

    return make_caches(partial(run, recipe), recipe.allow_errors, quiet=quiet, as_json=as_json)
