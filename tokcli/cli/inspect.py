"""`tokcli inspect` and `tokcli verify`: what is in a cache, and whether it is sound."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokcli.cli.options import Json
from tokcli.cli.output import human_bytes, human_seconds, results, share, show, table

if TYPE_CHECKING:
    from tokcli.cache import Cache

CachePath = Annotated[str, typer.Argument(metavar="CACHE", help="Folder that `tokcli compress` wrote.")]
ITEM_COLUMNS = ("id", "kind", "duration_seconds", "source_tokens", "kept_tokens", "source_bytes")


def inspect(
    cache: CachePath,
    items: Annotated[bool, typer.Option("--items", help="List the items.")] = False,
    errors: Annotated[bool, typer.Option("--errors", help="List the items that failed, with the reason.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a cache holds.

    Model, method, items, tokens and bytes saved, failures.

    [dim]tokcli inspect cache --errors[/dim]
    [dim]tokcli inspect cache --items --json | jq '.items[].kept_tokens'[/dim]
    """
    from tokcli.cache import open_cache

    opened = open_cache(cache)
    document = _document(opened, cache, items, errors)
    show(document, as_json, lambda: _draw(document))


def _document(cache: Cache, path: str, items: bool, errors: bool) -> dict[str, Any]:
    manifest = cache.manifest.to_json()
    failed = cache.errors().to_pylist()
    document: dict[str, Any] = {
        "cache": path,
        "complete": cache.complete,
        "stats": cache.stats(),
        "failed_by_stage": dict(Counter(row["stage"] for row in failed)),
        "manifest": manifest,
    }
    if items:
        document["items"] = cache.table(columns=list(ITEM_COLUMNS)).to_pylist()
    if errors:
        document["errors"] = failed
    return document


def _draw(document: dict[str, Any]) -> None:
    from tokcli.pipeline.progress import describe_method

    stats, configuration = document["stats"], document["manifest"]["configuration"]
    model, sampling = configuration["model"], configuration["sampling"]
    rate = f"{sampling['num_frames']} frames" if sampling.get("num_frames") else f"{sampling['fps']:g} fps"
    seconds = stats["media_seconds"]
    facts = [
        ("model", f"{model['model']} ({model['family']}, tower {model['fingerprint'][:12]})"),
        ("method", describe_method(configuration["method"])),
        ("sampling", f"{rate}, resized by {configuration['resize']}, decoder {configuration['decoder']}"),
        ("items", f"{stats['items']} ({_kinds(stats['kinds'])})"),
        ("failed", f"{stats['failed']} {document['failed_by_stage'] or ''}"),
        ("media", human_seconds(seconds)),
        (
            "tokens",
            f"{stats['source_tokens']:,} -> {stats['kept_tokens']:,}"
            f" ({share(stats['kept_tokens'], stats['source_tokens'])} kept), {configuration['tokens_dtype']}",
        ),
        (
            "bytes",
            f"{human_bytes(stats['source_bytes'])} -> {human_bytes(stats['cache_bytes'])}"
            f" ({share(stats['cache_bytes'], stats['source_bytes'])} of the source files)",
        ),
        ("complete", "yes" if document["complete"] else "no: run the same compress command again to go on"),
    ]
    results.print(f"[bold]{document['cache']}[/bold]: token cache, format {document['manifest']['format']}")
    results.print(table("", ("", ""), facts))
    if "items" in document:
        rows = [
            (
                row["id"],
                row["kind"],
                human_seconds(row["duration_seconds"]),
                row["source_tokens"],
                row["kept_tokens"],
                share(row["kept_tokens"], row["source_tokens"]),
            )
            for row in document["items"]
        ]
        columns = ("id", "kind", "seconds", "tokens", "kept", "share")
        results.print(table("", columns, rows, right=columns[2:]))
    if "errors" in document:
        failed = [(row["id"], row["stage"], row["error_class"], row["message"]) for row in document["errors"]]
        results.print(table("", ("id", "stage", "error", "message"), failed))


def _kinds(kinds: dict[str, dict[str, Any]]) -> str:
    return ", ".join(f"{part['items']} {kind}" for kind, part in kinds.items())


def verify(cache: CachePath, as_json: Json = False) -> None:
    """Check every page of a cache.

    Checksums and invariants; exit code 5 if anything is wrong.

    [dim]tokcli verify cache && rsync -a cache/ backup/[/dim]
    """
    from tokcli.cache import verify_cache

    report = verify_cache(cache)
    document = {
        "cache": cache,
        "sound": not report,
        "problems": [{"file": problem.file, "what": problem.what} for problem in report],
    }

    def draw() -> None:
        for problem in report:
            results.print(f"[red]{problem.file}[/red]: {problem.what}")
        results.print(f"{cache}: " + (f"{len(report)} problems" if report else "sound"))

    show(document, as_json, draw)
    raise typer.Exit(5 if report else 0)
