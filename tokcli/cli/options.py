"""Options that several commands share, and how their texts become values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from tokcli.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes, only errors.")]
Dtype = Annotated[
    str, typer.Option(help="Type to compute in: auto, float32, bfloat16 or float16.", rich_help_panel="Model")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel="Model")]


def key_values(pairs: Iterable[str], example: str = "threshold=0.4") -> dict[str, str]:
    """Turn ``["a=1", "b.c=x"]`` of ``--set`` into a dictionary. Raises ``UsageError`` for a pair without '='."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {pair!r} is not KEY=VALUE; write for example --set {example}")
        found[key.strip()] = value.strip()
    return found
