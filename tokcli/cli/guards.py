"""Options that guard an unattended run: what a file may be, what a decoder may take, what becomes of what failed."""

from __future__ import annotations

from typing import Annotated

import typer

from tokcli.cli.options import RUNNING

LIMITS = "Limits"
"""Panel of what is refused before it is decoded."""

LimitPixels = Annotated[
    int | None, typer.Option(help="Refuse larger frames and stills. (default: 134217728)", rich_help_panel=LIMITS)
]
LimitSeconds = Annotated[
    float | None, typer.Option(help="Refuse longer videos. (default: 43200, twelve hours)", rich_help_panel=LIMITS)
]
LimitFrames = Annotated[
    int | None, typer.Option(help="Refuse videos with more source frames. (default: 3000000)", rich_help_panel=LIMITS)
]
LimitBytes = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Refuse larger files, '20GB'. (default: 256GiB)", rich_help_panel=LIMITS),
]
OnError = Annotated[
    str,
    typer.Option(
        help="skip: a file that fails or is damaged is noted and left out; salvage: damaged videos are used as far as "
        "they decode; fail: stop at the first.",
        rich_help_panel=RUNNING,
    ),
]
MinDecoded = Annotated[
    float | None,
    typer.Option(
        help="For salvage: share of the planned frames that must decode. (default: 0.9)", rich_help_panel=RUNNING
    ),
]
MaxErrorRate = Annotated[
    float | None,
    typer.Option(
        help="Stop when more than this share (0.05) of the items failed, of 50 or more. (default: never)",
        rich_help_panel=RUNNING,
    ),
]
FileTimeout = Annotated[
    float,
    typer.Option(help="Seconds of work a file may take, plus one a second of each megapixel.", rich_help_panel=RUNNING),
]
Heartbeat = Annotated[
    float,
    typer.Option(
        help="Seconds of work that a decoder may spend without a packet read or a frame decoded.",
        rich_help_panel=RUNNING,
    ),
]
DecoderMemory = Annotated[
    str, typer.Option(metavar="SIZE", help="Memory that a decoder may take for a file.", rich_help_panel=RUNNING)
]
