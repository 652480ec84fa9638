"""The `tokcli` command: its sub-commands, its options that hold for all of them, and what failures become."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

import tokcli
from tokcli.cli import (
    catalog,
    compress,
    debug,
    derive,
    doctor,
    evaluate,
    export,
    infer,
    inspect,
    maintain,
    plan,
    render,
    run,
    tune,
    verify,
)
from tokcli.cli.help_text import help_of
from tokcli.cli.output import fail, notices
from tokcli.cli.stopping import Stopped
from tokcli.errors import TokcliError

EPILOG = (
    "Exit codes: 0 all done, 1 fatal, 2 usage or cache in use, 3 some items failed, 4 cache of another "
    "configuration, 5 damaged cache, 130/143 stopped and resumable."
)

app = typer.Typer(
    name="tokcli",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)
for command in (
    compress.compress,
    derive.derive,
    infer.infer,
    export.export,
    evaluate.evaluate,
    tune.tune,
    inspect.inspect,
    verify.verify,
    maintain.repair,
    maintain.compact,
    maintain.merge,
    plan.plan,
    catalog.methods,
    catalog.models,
    render.render,
    run.run,
    doctor.doctor,
    debug.debug,
):
    # `eval` would hide Python's own function.
    app.command("eval" if command is evaluate.evaluate else None, help=help_of(command))(command)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"tokcli {tokcli.__version__}\n")
        raise typer.Exit


@app.callback()
def tokcli_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False,
) -> None:
    """Encode media once, keep the visual tokens that matter, answer from the cache.

    [bold]tokcli render -o clips[/bold]  writes sample clips with questions
    [bold]tokcli compress clips -o cache --method dtd[/bold]  decodes, encodes, compresses
    [bold]tokcli infer cache --prompts clips/qa.jsonl[/bold]  asks the language model alone
    """
    if debug:
        os.environ["TOKCLI_DEBUG"] = "1"


def _remove_if_empty() -> None:
    """Remove the folder for compiled code that torch makes, and names here, when transformers is imported.

    Nothing of ours compiles; a folder that a method compiled into is not empty, and stays.
    """
    with contextlib.suppress(KeyError, OSError):
        Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).rmdir()


def main() -> None:
    """Entry point: run the command, and turn every failure into one line and an exit code."""
    # Nothing to keep yet: a stop during start-up ends the process at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Torch's threads spin while they wait for each other, by default. With decoders or anybody else on the same cores
    # that made the encoder forty times slower (two threads, one core taken); sleeping instead costs nothing measurable.
    # Must be set before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:  # else the folder was asked for
        atexit.register(_remove_if_empty)
    try:
        app(standalone_mode=True)
    except TokcliError as error:
        if os.environ.get("TOKCLI_DEBUG"):
            raise
        fail(str(error))
        sys.exit(error.exit_code)
    except Stopped as stop:
        notices.print("stopped: the same command goes on from here")
        sys.exit(stop.exit_code)
    except Exception as error:
        if os.environ.get("TOKCLI_DEBUG"):
            raise
        reason = " ".join(str(error).split())
        fail(f"unexpected {type(error).__name__}: {reason} (run `tokcli --debug ...` for the traceback)")
        sys.exit(1)


if __name__ == "__main__":
    main()
