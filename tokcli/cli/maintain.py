"""`tokcli repair`, `tokcli compact` and `tokcli merge`: caches that are there, without media and models."""

from __future__ import annotations

from typing import Annotated, Any, cast

import typer
from rich.markup import escape

from tokcli.cli.inspect import CachePath
from tokcli.cli.options import Json, Quiet
from tokcli.cli.output import counted, human_bytes, note, plain, results, show
from tokcli.errors import TokcliError, UsageError

SHOWN = 10
"""Ids that are printed for people; --json has all."""

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def repair(
    cache: CachePath,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--inputs", metavar="INPUT", help="Make what is lost again from these media; repeatable."),
    ] = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Take what is damaged out of a cache, and say what to make again.

    Bad shards go to CACHE/damaged; nothing is deleted. The cache is sound then,
    and incomplete: the compress command that is printed makes the lost items
    anew and no others.

    Exit codes: 0 nothing is lost, or --inputs made it again; 3 items are to be
    made again; 5 it cannot be repaired, or --dry-run found damage.

    [dim]tokcli repair cache --dry-run[/dim]
    [dim]tokcli repair cache[/dim]
    [dim]tokcli repair cache --inputs videos/[/dim]

    With --json: problems (file, what), moved, redo (ids), unnamed (more may be
    lost, whose ids cannot be read), command (null where it cannot be told);
    with --inputs a second object, that of `tokcli compress`.
    """
    from tokcli.cache import repair_cache

    if inputs and dry_run:
        raise UsageError("--dry-run writes nothing, --inputs makes items again; leave one out")
    done = repair_cache(cache, dry_run=dry_run)
    lost = bool(done.redo) or done.unnamed
    command, hint = _command(cache) if lost else (None, "")
    document: dict[str, Any] = {
        "cache": cache,
        "problems": [vars(problem) for problem in done.problems],
        "moved": list(done.moved),
        "redo": list(done.redo),
        "unnamed": done.unnamed,
        "command": command,
    }

    def draw() -> None:
        for problem in done.problems:
            results.print(f"[red]{escape(plain(problem.file))}[/red]: {escape(plain(problem.what))}")
        for file in done.moved:
            results.print(f"moved {escape(plain(file))} to damaged/")
        name = escape(plain(cache))
        if not done.problems:
            results.print(f"{name}: sound, nothing to repair")
        elif not lost:
            results.print(f"{name}: no item is lost")
        else:
            results.print(f"{name}: to make again: {escape(_named(done.redo, done.unnamed))}")
            results.print(escape(plain(command or hint)))

    show(document, as_json, draw)
    if dry_run:
        raise typer.Exit(5 if done.problems else 0)
    if inputs:
        raise typer.Exit(_make_again(cache, inputs, quiet, as_json))
    raise typer.Exit(3 if lost else 0)


def _named(ids: tuple[str, ...], unnamed: bool) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    named = ", ".join(plain(item_id) for item_id in ids[:SHOWN]) + more
    others = "items whose ids cannot be read"
    return f"{named}, and perhaps {others}" if ids and unnamed else named or others


def _command(cache: str) -> tuple[str | None, str]:
    """What makes the lost items again, or why that cannot be told."""
    from tokcli.cache.manifest import read_manifest
    from tokcli.pipeline.recorded import command_line, recorded_recipe
    from tokcli.storage import location

    try:
        return command_line(recorded_recipe(read_manifest(location(cache)), cache)), ""
    except TokcliError as error:
        return None, str(error)


def _make_again(cache: str, inputs: list[str], quiet: bool, as_json: bool) -> int:
    from tokcli.cache.manifest import read_manifest
    from tokcli.cli.compress import run_compress
    from tokcli.pipeline.recorded import recorded_recipe
    from tokcli.storage import location

    return run_compress(recorded_recipe(read_manifest(location(cache)), cache, inputs), quiet, as_json)


def compact(cache: CachePath, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Rewrite many small shards into few, in place.

    Drops rows that were superseded: of changed files, and of failures that were
    overcome. Items and their bytes stay; a kill at any moment costs nothing. It
    needs room for one more shard (512 MiB), and no run may be writing to the
    cache.

    [dim]tokcli compact cache --dry-run[/dim]
    [dim]tokcli compact cache[/dim]

    With --json: shards_before, shards_after, bytes_before, bytes_after,
    superseded.
    """
    from tokcli.cache import compact_cache

    done = compact_cache(cache, dry_run=dry_run)

    def draw() -> None:
        results.print(
            f"{escape(plain(cache))}: {counted(done.shards_before, 'shard')} {'would become' if dry_run else '->'}"
            f" {done.shards_after}, {human_bytes(done.bytes_before)} -> {human_bytes(done.bytes_after)}"
            f" ({counted(done.superseded, 'superseded row')})"
        )

    show({"cache": cache, "dry_run": dry_run, **vars(done)}, as_json, draw)


def merge(
    caches: Annotated[list[str], typer.Argument(metavar="CACHE...", help="Caches of one configuration.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the merged cache; it may exist.")],
    on_conflict: Annotated[
        str | None,
        typer.Option(help="Of one id and different files take: first (cache), or newest (file). Default: refuse."),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Bring several caches of one configuration into one.

    For runs that were split over machines or folders. Every row is checked and
    copied, none is decoded. An item that several have is taken from the first;
    a failure stands only where no cache has the item. Run it again to go on, or
    to add another cache.

    Exit code 4 and the difference for caches of another configuration.

    [dim]tokcli merge part-1 part-2 part-3 -o cache[/dim]
    [dim]tokcli merge old new -o cache --on-conflict newest[/dim]

    With --json: items, failed, copied (in this run), conflicts (ids), complete.
    """
    from tokcli.cache import merge_caches
    from tokcli.cache.merge import OnConflict
    from tokcli.checking import no_pipe

    if on_conflict not in (None, "first", "newest"):
        raise UsageError(f"--on-conflict is first or newest, got {on_conflict!r}")
    try:
        no_pipe(output)
    except ValueError as error:
        raise UsageError(f"merge: --output: {error}") from None
    done = merge_caches(caches, output, on_conflict=cast("OnConflict | None", on_conflict))
    if not done.complete and not quiet:
        note("not complete: at least one of the caches is not")

    def draw() -> None:
        chosen = f", {counted(len(done.conflicts), 'conflict')} decided" if done.conflicts else ""
        results.print(
            f"{escape(plain(output))}: {counted(done.items, 'item')}, {done.failed} failed"
            f" ({counted(done.copied, 'row')} copied{chosen})"
        )

    show({"output": output, **vars(done)}, as_json, draw)
