"""`tokcli doctor`: is this machine ready, and if not, what to type."""

from __future__ import annotations

from typing import Any

import typer
from rich.text import Text

from tokcli.cli.options import Json
from tokcli.cli.output import results, show, table


def doctor(as_json: Json = False) -> None:
    """Check that this machine is ready.

    Looks at libraries, decoders, the bundled model, memory and disk, and says what to
    do about what is missing. Exit code 2 if something needed is missing.
    """
    from tokcli.pipeline.doctor import diagnose

    checks = diagnose()
    bad = any(check.status == "missing" for check in checks)
    document: dict[str, Any] = {"ready": not bad, "checks": [vars(check) for check in checks]}

    def draw() -> None:
        colours = {"ok": "green", "missing": "red", "optional": "yellow"}
        rows = [
            (check.name, Text(check.status, style=colours[check.status]), check.found, check.remedy) for check in checks
        ]
        results.print(table("", ("part", "state", "found", "what to do"), rows))
        results.print("ready" if not bad else "[red]not ready[/red]: see the last column")

    show(document, as_json, draw)
    raise typer.Exit(2 if bad else 0)
