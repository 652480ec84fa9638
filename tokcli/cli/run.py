"""`tokcli run`: the steps of a recipe, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokcli.cli.compress import run_compress
from tokcli.cli.derive import run_derive
from tokcli.cli.evaluate import run_eval
from tokcli.cli.infer import run_infer
from tokcli.cli.options import Json, Quiet, key_values
from tokcli.cli.output import if_read, notices
from tokcli.cli.render import run_render


def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="YAML file; see recipes/.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="K=V", help="Override a key, e.g. compress.method=evs; repeatable."),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a YAML recipe.

    Does render, compress, derive, infer and eval as far as it names them; safe to repeat.
    Items that fail in one step do not keep the next from its work; the exit code is 3 then.

    [dim]tokcli run recipes/demo.yaml[/dim]
    [dim]tokcli run nightly.yaml --set compress.keep=0.1 --set compress.output=/data[/dim]
    """
    from tokcli.recipe import load_recipe

    steps = load_recipe(Path(recipe), key_values(settings or [], example="compress.keep=0.1"))
    codes = [0]
    if steps.render is not None:
        _title("render", quiet)
        run_render(steps.render, quiet, as_json)
    # Every step does its work, whatever failed in one before: the items that are there are worth asking about.
    if steps.compress is not None:
        _title("compress", quiet)
        codes.append(run_compress(steps.compress, quiet, as_json))
    if steps.derive is not None:
        _title("derive", quiet)
        codes.append(run_derive(steps.derive, quiet, as_json))
    if steps.infer is not None:
        _title("infer", quiet)
        with if_read():  # without an output it ends when nobody reads the answers
            codes.append(run_infer(steps.infer, quiet, as_json))
    if steps.eval is not None:
        _title("eval", quiet)
        codes.append(run_eval(steps.eval, quiet, as_json))
    raise typer.Exit(max(codes))


def _title(step: str, quiet: bool) -> None:
    if not quiet:
        notices.print(f"[bold cyan]{step}[/bold cyan]")
