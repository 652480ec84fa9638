"""`tokcli debug`: everything about one file, and where and why it fails."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.markup import escape

from tokcli.cli.guards import (
    DecoderMemory,
    FileTimeout,
    Heartbeat,
    LimitBytes,
    LimitFrames,
    LimitPixels,
    LimitSeconds,
)
from tokcli.cli.options import Json
from tokcli.cli.output import human_bytes, plain, results, show, table


def debug(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A video or image, sound or not.")],
    fps: Annotated[
        float | None, typer.Option(help="Decode what this many frames per second need. (default: every frame)")
    ] = None,
    decoder: Annotated[str, typer.Option(help="auto, pyav, decord or torchcodec.")] = "auto",
    limit_pixels: LimitPixels = None,
    limit_seconds: LimitSeconds = None,
    limit_frames: LimitFrames = None,
    limit_bytes: LimitBytes = None,
    timeout: FileTimeout = 60.0,
    heartbeat: Heartbeat = 60.0,
    decoder_memory: DecoderMemory = "4GiB",
    as_json: Json = False,
) -> None:
    """Find out what is wrong with a file.

    Goes through it in a process of its own, as a run does: what it is by its first bytes,
    what its headers say, its packets, and every frame. Says which step fails and why, with
    the decoder's last messages. Exit code 0 if it is sound, 3 if not.

    [dim]tokcli debug videos/cat.mp4[/dim]
    [dim]tokcli debug videos/cat.mp4 --json | jq .steps.frames[/dim]

    With --json: path, sound, failed_step, error_class, reason, log, and steps with what
    was found by file, sniff, container, packets (of videos) and frames.
    """
    from tokcli.checking import check
    from tokcli.errors import UsageError
    from tokcli.media import Sampling, decoder_names
    from tokcli.pipeline.decoder import Supervision
    from tokcli.pipeline.preflight import limits_of
    from tokcli.pipeline.probing import diagnose_file
    from tokcli.recipe import GuardRecipe

    if decoder not in decoder_names():
        raise UsageError(f"unknown decoder {decoder!r}; known: {', '.join(decoder_names())}")
    limits: dict[str, Any] = {"max_pixels": limit_pixels, "max_seconds": limit_seconds}
    limits |= {"max_source_frames": limit_frames, "max_bytes": limit_bytes}
    values = {"limits": limits, "timeout": timeout, "heartbeat": heartbeat, "decoder_memory": decoder_memory}
    guard: GuardRecipe = check(GuardRecipe, values, "debug", flags=True)
    supervision = Supervision(guard.timeout, guard.heartbeat, guard.decoder_memory)
    found = diagnose_file(file, Sampling(fps=fps), limits_of(guard.limits), decoder, supervision)
    document = found.to_json()
    show(document, as_json, lambda: _draw(document))
    raise typer.Exit(0 if found.sound else 3)


def _draw(document: dict[str, Any]) -> None:
    rows = [
        (step, name.removesuffix("_ns"), _text(name, value))
        for step, facts in document["steps"].items()
        for name, value in facts.items()
    ]
    shown = [
        (step if number == 0 or rows[number - 1][0] != step else "", *rest) for number, (step, *rest) in enumerate(rows)
    ]
    results.print(table("", ("", "", ""), shown))
    if document["log"]:
        results.print("the decoder's last messages:")
        for line in document["log"]:
            results.print(f"  {escape(plain(line))}", style="dim")
    name = escape(plain(document["path"]))
    if document["sound"]:
        results.print(f"[bold]{name}[/bold]: sound")
        return
    reason = plain(document["reason"]).removeprefix(f"{plain(document['path'])}: ")
    results.print(
        f"[bold]{name}[/bold]: [red]{document['failed_step']}: {document['error_class']}[/red]: {escape(reason)}"
    )


def _text(name: str, value: Any) -> str:
    if name in ("bytes", "limit_bytes"):
        return f"{value:,}" if value < 1024 else f"{value:,} ({human_bytes(value)})"
    if name == "modified_ns":
        return f"{datetime.fromtimestamp(value // 10**9, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return (
        "-" if value is None else f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    )
