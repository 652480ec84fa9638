"""`tokcli verify`: is a cache sound, and is it what its sources give?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tokcli.cli.inspect import CachePath
from tokcli.cli.options import Device, Json, Quiet
from tokcli.cli.output import counted, plain, results, show

if TYPE_CHECKING:
    from tokcli.pipeline.reencode import DeepReport

DEEP = "With --deep"


def verify(
    cache: CachePath,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also encode a sample again from its sources, and compare.")
    ] = False,
    sample: Annotated[int, typer.Option(min=1, help="How many items, drawn at random.", rich_help_panel=DEEP)] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the draw.", rich_help_panel=DEEP)] = 0,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Check every page and every row of a cache.

    Checksums and invariants; exit code 5 if anything is wrong, and `tokcli
    repair` mends it.

    With --deep a sample is encoded again from its media with the cache's own
    model, sampling and method. Where libraries and machine are those that made
    the cache, it must come out bit for bit; else the same rows but for 2%, and
    tokens as near as 1e-4 (float32), 1e-2 (float16) or 3e-2 (bfloat16) of their
    norm. Media that are gone or changed are named and no fault.

    [dim]tokcli verify cache && rsync -a cache/ backup/[/dim]
    [dim]tokcli verify cache --deep --sample 50[/dim]

    With --json: sound, complete, items, failed, problems (file, what); under deep: exact,
    tolerance, reasons (why not exact), items (id, outcome: equal, close, different,
    changed or gone; detail).
    """
    from tokcli.cache import open_cache, verify_cache
    from tokcli.cache.success import read_success
    from tokcli.storage import location

    report = verify_cache(cache)
    complete = not report and read_success(location(cache)) is not None
    opened = None if report else open_cache(cache)
    items, failed = (None, None) if opened is None else (len(opened), opened.errors().num_rows)
    checked = _deep(cache, sample, seed, device, quiet) if deep and not report else None
    wrong = checked.wrong if checked is not None else []
    document: dict[str, Any] = {
        "cache": cache,
        "sound": not report and not wrong,
        "complete": complete,
        "items": items,
        "failed": failed,
        "problems": [{"file": problem.file, "what": problem.what} for problem in report],
    }
    if checked is not None:
        document["deep"] = {
            "exact": checked.exact,
            "tolerance": checked.tolerance,
            "reasons": list(checked.reasons),
            "items": [vars(item) for item in checked.items],
        }

    def draw() -> None:
        for problem in report:
            results.print(f"[red]{escape(plain(problem.file))}[/red]: {escape(plain(problem.what))}")
        name = escape(plain(cache))
        sound = "sound" if complete else "sound as far as it goes, not complete: the run that fills it has not ended"
        if items is None:
            results.print(f"{name}: {counted(len(report), 'problem')}; `tokcli repair {name}`")
        else:
            results.print(f"{name}: {counted(items, 'item')} and {counted(failed or 0, 'failure')}, {sound}")
        if checked is not None:
            _draw_deep(checked)
        elif deep:
            results.print("nothing was encoded again: what is stored is damaged")

    show(document, as_json, draw)
    raise typer.Exit(5 if report or wrong else 0)


def _deep(cache: str, sample: int, seed: int, device: str, quiet: bool) -> DeepReport:
    from tokcli.cli.display import ProgressDisplay
    from tokcli.cli.stopping import stoppable
    from tokcli.pipeline.reencode import verify_deep

    with stoppable(), ProgressDisplay(quiet, notes=False) as display:
        return verify_deep(cache, sample=sample, seed=seed, device=device, observer=display)


def _draw_deep(report: DeepReport) -> None:
    colours = {"equal": "green", "close": "green", "different": "red", "changed": "yellow", "gone": "yellow"}
    for item in report.items:
        colour = "red" if item in report.wrong else colours[item.outcome]
        detail = f": {escape(plain(item.detail))}" if item.detail else ""
        results.print(f"  [{colour}]{item.outcome}[/] {escape(plain(item.id))}{detail}")
    compared = [item for item in report.items if item.outcome not in ("changed", "gone")]
    how = "bit for bit" if report.exact else f"within {report.tolerance:g}, as {'; '.join(report.reasons)}"
    results.print(
        f"as stored: {len(compared) - len(report.wrong)} of {counted(len(compared), 'item')} encoded again"
        f" ({escape(how)})"
        if compared
        else "no source is there any more as it was: nothing could be encoded again"
    )
