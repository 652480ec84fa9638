"""Options that several commands share, and how their texts become values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from tokcli.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes, only errors.")]
Model = Annotated[
    str, typer.Option(help="'nano' (bundled), a checkpoint folder, or a hub name.", rich_help_panel="Model")
]
Dtype = Annotated[
    str, typer.Option(help="Type to compute in: auto, float32, bfloat16 or float16.", rich_help_panel="Model")
]
Device = Annotated[
    str, typer.Option(help="auto (cuda if there, else cpu), cpu, cuda, cuda:N or mps.", rich_help_panel="Model")
]

INPUT, SAMPLING, RUNNING = "Input", "Sampling", "Running"
"""Panels of the commands that read media."""

Inputs = Annotated[
    list[str],
    typer.Argument(metavar="INPUT", help="Files, folders, globs, manifests (csv, jsonl, parquet), or URLs of these."),
]
PathCol = Annotated[str, typer.Option(help="Manifest column with the path.", rich_help_panel=INPUT)]
IdCol = Annotated[
    str | None, typer.Option(help="Manifest column with the id (default: the path).", rich_help_panel=INPUT)
]
Limit = Annotated[int | None, typer.Option(help="Only the first N inputs.", rich_help_panel=INPUT)]
Fps = Annotated[float, typer.Option(help="Frames per second of video to encode.", rich_help_panel=SAMPLING)]
NumFrames = Annotated[
    int | None, typer.Option(help="This many frames of each video instead of --fps.", rich_help_panel=SAMPLING)
]
MaxFrames = Annotated[
    int | None, typer.Option(help="Lower the rate of long videos to this many frames.", rich_help_panel=SAMPLING)
]
Resize = Annotated[
    str,
    typer.Option(help="hf: the model's own kernel, exact; swscale: faster, other pixels.", rich_help_panel=SAMPLING),
]
RetryErrors = Annotated[
    bool,
    typer.Option("--retry-errors", help="Try items again that failed in an earlier run.", rich_help_panel=RUNNING),
]
Workers = Annotated[
    int | None,
    typer.Option("--num-workers", help="Decoder processes (default: the cores).", rich_help_panel=RUNNING),
]

ASKING, WHAT = "Questions", "Methods"
"""Panels of `tokcli eval` and `tokcli tune`, which ask the same way."""

RANKING = "What ranks tokens, for methods that rank by attention: recv, meanq, cls, hub, probe or anticos."

System = Annotated[str | None, typer.Option(help="System prompt.", rich_help_panel=ASKING)]
Positions = Annotated[
    str, typer.Option(help="Position scheme: original (as trained), hf, compact.", rich_help_panel=ASKING)
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="M.K=V", help="An option of a method; repeatable.", rich_help_panel=WHAT),
]
Importance = Annotated[str | None, typer.Option(help=RANKING, rich_help_panel=WHAT)]

METHOD = "Method and budget"
"""Panel of `tokcli compress` and `tokcli derive`, which make caches by the same methods."""

Keep = Annotated[
    float | None, typer.Option(help="Share of each item's tokens to keep, 0 < R <= 1.", rich_help_panel=METHOD)
]
MaxTokens = Annotated[int | None, typer.Option(help="Tokens to keep of each item at most.", rich_help_panel=METHOD)]
Threshold = Annotated[float | None, typer.Option(help="The method's own threshold.", rich_help_panel=METHOD)]
OneMethodOptions = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="K=V", help="An option of the method; repeatable.", rich_help_panel=METHOD),
]
OneMethodImportance = Annotated[str | None, typer.Option(help=RANKING, rich_help_panel=METHOD)]
Also = Annotated[
    list[str] | None,
    typer.Option(
        metavar="M@B=FOLDER",
        help="Fill another cache too: method, @ share or number of tokens, :option=value,...; repeatable.",
        rich_help_panel=METHOD,
    ),
]
OnError = Annotated[str, typer.Option(help="skip: note the item and go on; fail: stop.", rich_help_panel=RUNNING)]
AllowErrors = Annotated[
    bool, typer.Option("--allow-errors", help="End with 0 though items failed.", rich_help_panel=RUNNING)
]


def key_values(pairs: Iterable[str], example: str = "threshold=0.4") -> dict[str, str]:
    """Turn ``["a=1", "b.c=x"]`` of ``--set`` into a dictionary. Raises ``UsageError`` for a pair without '='."""
    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {pair!r} is not KEY=VALUE; write for example --set {example}")
        found[key.strip()] = value.strip()
    return found


def listed(text: str | None) -> list[str] | None:
    """``"a, b"`` as ``["a", "b"]``; None stays None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def sampling(fps: float, num_frames: int | None, max_frames: int | None) -> dict[str, float | None]:
    """The three options as a recipe has them: --num-frames in place of --fps."""
    return {"fps": None if num_frames else fps, "num_frames": num_frames, "max_frames": max_frames}


def method_options(
    settings: list[str] | None, importance: str | None, entries: Iterable[str], example: str = "threshold=0.4"
) -> dict[str, str]:
    """What ``--set`` and ``--importance`` say for the methods in ``entries``, ``["a:threshold=0.5", "b+c"]``.

    ``importance`` becomes ``METHOD.importance`` for each method that has this option; what ``settings`` say wins.

    Raises:
        UsageError: A setting is not KEY=VALUE, or none of the methods ranks tokens by attention.
        MethodError: A method is unknown, where there is an ``importance``.
    """
    options = key_values(settings or [], example)
    if importance is None:
        return options
    from tokcli.methods import METHODS

    names = list(dict.fromkeys(named_methods(entries)))
    able = [name for name in names if "importance" in METHODS.get(name).options.model_fields]
    if not able:
        known = [name for name, method in METHODS.loaded().items() if "importance" in method.options.model_fields]
        raise UsageError(
            f"--importance is for methods that rank tokens by attention, which {', '.join(names)} "
            f"{'does' if len(names) == 1 else 'do'} not; those that do: {', '.join(known) or 'none so far'}"
        )
    return {f"{name}.importance": importance for name in able} | options


def named_methods(entries: Iterable[str]) -> list[str]:
    """The methods of ``["a:threshold=0.5", "b+c"]``: a, b, c."""
    return [name.strip() for entry in entries for name in entry.partition(":")[0].split("+")]
