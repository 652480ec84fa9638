"""`tokcli inspect`: what is in a cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tokcli.cli.options import Json
from tokcli.cli.output import counted, human_bytes, human_seconds, plain, results, share, show, table
from tokcli.cli.statistics import draw_statistics, item_facts, sample_facts, table_facts
from tokcli.errors import UsageError

if TYPE_CHECKING:
    from tokcli.cache import Cache

CachePath = Annotated[str, typer.Argument(metavar="CACHE", help="Folder that `tokcli compress` wrote, or its URL.")]
ITEM_COLUMNS = ("id", "kind", "duration_seconds", "source_tokens", "kept_tokens", "source_bytes")
REASONS = 8
"""Kinds of failures that are counted by name."""


def inspect(
    cache: CachePath,
    item: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="One item, or the end of its id: timeline, cuts, rank and coverage."),
    ] = None,
    items: Annotated[bool, typer.Option("--items", help="List the items.")] = False,
    errors: Annotated[bool, typer.Option("--errors", help="List the items that failed, with the reason.")] = False,
    tokens: Annotated[
        bool,
        typer.Option(
            "--tokens",
            help="Read tokens too, of a sample of the items: drops over time, scene cuts, effective rank, coverage.",
        ),
    ] = False,
    sample: Annotated[
        int, typer.Option(min=1, help="How many items --tokens reads, evenly spaced in the order of writing.")
    ] = 64,
    accuracy: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of right answers with this cache, 0.93: adds TokDense."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a cache holds.

    Model, method, items, tokens and bytes saved, failures, tokens for a second
    of media. No tokens are read but by [bold]--tokens[/bold] or an ID; these tell:

    [bold]Scene cuts[/bold]: steps that keep at least 3 times the median of the 4 steps on
    either side, and 20% of a step more.
    [bold]Effective rank[/bold] (Roy and Vetterli 2007): exp of the entropy of the singular
    values over their sum, not centred, of at most 1,024 tokens of an item.
    [bold]Coverage[/bold]: shares of the kept tokens in the top, middle and bottom third of
    the picture, and in brackets those of an even spread.
    [bold]TokDense[/bold] (by --accuracy): points of accuracy divided by the mean number of
    visual tokens of an item.

    [dim]tokcli inspect cache --errors[/dim]
    [dim]tokcli inspect cache videos/cat.mp4[/dim]
    [dim]tokcli inspect cache --tokens --sample 200 --accuracy 0.93[/dim]
    [dim]tokcli inspect cache --items --json | jq '.items[].kept_tokens'[/dim]
    """
    from tokcli.cache import open_cache

    opened = open_cache(cache)
    if item is not None:
        if items or errors:
            raise UsageError("--items and --errors list the whole cache; leave out the ID, or leave them out")
        _show_item(opened, cache, item, accuracy, as_json)
        return
    document = _document(opened, cache, items, errors)
    document["statistics"] = _statistics(opened, sample if tokens else 0, accuracy)
    show(document, as_json, lambda: _draw(document))


def _statistics(cache: Cache, sample: int, accuracy: float | None) -> dict[str, Any]:
    from tokcli.evaluate.statistics import sample_statistics, table_statistics

    names = ("kept_tokens", "source_tokens", "duration_seconds", "stats")
    statistics = table_statistics(cache.table(columns=list(names)), accuracy)
    count = min(sample, len(cache))
    chosen = (cache[number * len(cache) // count] for number in range(count))
    return statistics | {"sample": sample_statistics(chosen) if count else None}


def _show_item(cache: Cache, path: str, item_id: str, accuracy: float | None, as_json: bool) -> None:
    from tokcli.evaluate.statistics import item_statistics
    from tokcli.pipeline.prompts import ItemNames

    if item_id not in cache and item_id not in cache.index.failed:
        item_id = ItemNames(cache.ids()).find(item_id) or item_id
    item = cache[item_id]
    names = ("id", "kind", "path", "codec", "duration_seconds", "source_bytes", "source_tokens")
    facts: dict[str, Any] = {**{name: getattr(item, name) for name in names}, "kept_tokens": len(item.kept)}
    statistics = item_statistics(item, accuracy)
    document = {"cache": path, "item": facts, "statistics": statistics}
    show(document, as_json, lambda: draw_statistics(plain(item_id), item_facts(facts, statistics)))


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


def _facts(document: dict[str, Any]) -> list[tuple[str, str]]:
    """What stands in the table at the top."""
    from tokcli.pipeline.progress import describe_method

    stats, configuration = document["stats"], document["manifest"]["configuration"]
    model, sampling = configuration["model"], configuration["sampling"]
    rate = f"{sampling['num_frames']} frames" if sampling.get("num_frames") else f"{sampling['fps']:g} fps"
    seconds = stats["media_seconds"]
    kinds = {kind: part["items"] for kind, part in stats["kinds"].items()}
    return [
        ("model", f"{model['model']} ({model['family']}, tower {model['fingerprint'][:12]})"),
        ("method", describe_method(configuration["method"])),
        ("sampling", f"{rate}, resized by {configuration['resize']}, decoder {configuration['decoder']}"),
        ("items", f"{stats['items']:,}{_parts(kinds)}"),
        ("failed", f"{stats['failed']:,}{_parts(document['failed_by_stage'])}"),
        *([("reasons", _reasons(document["errors"]))] if document.get("errors") else []),
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
        *table_facts(document["statistics"]),
        ("complete", "yes" if document["complete"] else "no: run the same compress command again to go on"),
    ]


def _draw(document: dict[str, Any]) -> None:
    results.print(
        f"[bold]{escape(plain(document['cache']))}[/bold]: token cache, format {document['manifest']['format']}"
    )
    results.print(table("", ("", ""), _facts(document)))
    if sample := document["statistics"]["sample"]:
        title = f"From the tokens of {sample['items']:,} of {counted(document['stats']['items'], 'item')}"
        draw_statistics(title, sample_facts(sample))
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
        failed = [(row["id"], row["stage"], row["error_class"], _reason(row)) for row in document["errors"]]
        results.print(table("", ("id", "stage", "error", "message"), failed))


def _reasons(failed: Sequence[Mapping[str, Any]]) -> str:
    """How many failed of which kind, the most frequent first."""
    counts = Counter(f"{row['stage']} {row['error_class']}" for row in failed).most_common()
    parts = [f"{count:,} {kind}" for kind, count in counts[:REASONS]]
    if rest := counts[REASONS:]:
        parts.append(f"{sum(count for _, count in rest):,} of {counted(len(rest), 'other kind')}")
    return ", ".join(parts)


def _reason(row: dict[str, Any]) -> str:
    """Its message, without the path where the id beside it is that."""
    message: str = row["message"]
    return message.removeprefix(f"{row['path']}: ") if row["path"] == row["id"] else message


def _parts(counts: Mapping[str, Any]) -> str:
    """`` (2 video, 1 image)``; nothing where there is none."""
    return f" ({', '.join(f'{count:,} {name}' for name, count in counts.items())})" if counts else ""
