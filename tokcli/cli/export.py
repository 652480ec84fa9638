"""`tokcli export`: parse, run, report; and the table of what can be exported."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tokcli.cli.options import RUNNING, Json, Quiet
from tokcli.cli.output import counted, human_bytes, human_seconds, note, plain, results, show, table
from tokcli.cli.stopping import Stopped, stoppable
from tokcli.errors import UsageError

if TYPE_CHECKING:
    from tokcli.pipeline.export.run import ExportSummary

ITEMS, REQUESTS, FILES = "Items", "Requests", "Files"


def export(
    cache: Annotated[
        str | None, typer.Argument(metavar="CACHE", help="Folder that `tokcli compress` wrote.", show_default=False)
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Folder to write; it appears whole.")] = None,
    to: Annotated[
        str,
        typer.Option("--format", "-f", help="safetensors, webdataset, hf-datasets, vllm, sglang or ec-connector."),
    ] = "safetensors",
    show_table: Annotated[
        bool,
        typer.Option("--table", help="Only show what each engine can take: of all families, or of CACHE's."),
    ] = False,
    ids: Annotated[
        list[str] | None,
        typer.Option("--ids", "--id", metavar="A,B|FILE", help="Only these items; repeatable.", rich_help_panel=ITEMS),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(help="Only items for which this SQL condition is true.", rich_help_panel=ITEMS),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first N items.", rich_help_panel=ITEMS)] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt", "-p", help="Question to every item, for vllm and sglang; repeatable.", rich_help_panel=REQUESTS
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.", rich_help_panel=REQUESTS)] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Another checkpoint with the same vision tower.", rich_help_panel=REQUESTS),
    ] = None,
    allow_approx_positions: Annotated[
        bool,
        typer.Option(
            "--allow-approx-positions",
            help="Write what an engine can only place in a row, though the model has positions in time, height and "
            "width.",
            rich_help_panel=REQUESTS,
        ),
    ] = False,
    tokens_dtype: Annotated[
        str,
        typer.Option(
            help="auto (as CACHE; quantized caches give float16), float16, bfloat16 or float32.", rich_help_panel=FILES
        ),
    ] = "auto",
    samples_per_shard: Annotated[
        int | None,
        typer.Option(
            help="Items in a file, for safetensors (default: 1), webdataset and hf-datasets (1000).",
            rich_help_panel=FILES,
        ),
    ] = None,
    max_shard_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="End a file before it is larger. (default: 512MB)", rich_help_panel=FILES),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an export that is there.", rich_help_panel=RUNNING)
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a cache in the format of a data loader or a serving engine.

    [bold]Data[/bold]: safetensors, webdataset and hf-datasets hold tokens, coordinates, mass and sources.
    [bold]Engines[/bold]: vllm and sglang get requests; ec-connector is vLLM's encoder cache, experimental.

    Engines place tokens themselves. Where that would be wrong the export is refused, with the
    reason, before anything is written; --table shows all cases.

    [dim]tokcli export cache -o tokens --samples-per-shard 100[/dim]
    [dim]tokcli export cache -o shards --format webdataset[/dim]
    [dim]tokcli export cache -o requests --format vllm --prompt "What happens here?"[/dim]
    [dim]tokcli export cache -o out --format sglang -p "What?" --where "kind='image'"[/dim]
    [dim]tokcli export --table[/dim]

    With --json one object: format, output, items, tokens, tokens_dtype, positions, files, bytes,
    seconds.
    """
    if show_table:
        _show_table(cache, as_json)
        return
    if cache is None or output is None:
        raise UsageError("export needs CACHE and --output FOLDER; or --table, to see what can be exported")
    from tokcli.checking import check
    from tokcli.cli.export_display import ExportDisplay
    from tokcli.pipeline.export.run import export as run
    from tokcli.pipeline.export.settings import ExportSettings

    values = {
        "cache": cache,
        "output": output,
        "format": to,
        "ids": ids or [],
        "where": where,
        "limit": limit,
        "prompt": prompt or [],
        "system": system,
        "model": model,
        "allow_approx_positions": allow_approx_positions,
        "tokens_dtype": tokens_dtype,
        "samples_per_shard": samples_per_shard,
        "max_shard_size": max_shard_size,
        "overwrite": overwrite,
    }
    settings: ExportSettings = check(ExportSettings, values, "export", flags=True)
    try:
        with stoppable(), ExportDisplay(quiet) as display:
            summary = run(settings, display.begin, display.item)
    except Stopped:
        note(f"nothing was written to {output}: an export is whole or not there, the next one begins anew")
        raise
    show(summary.to_json(), as_json, lambda: None if quiet else _draw(summary))


def _draw(summary: ExportSummary) -> None:
    positions = ", ".join(f"{count} {word}" for word, count in summary.positions.items())
    results.print(
        f"{escape(plain(summary.output))}: {counted(summary.items, 'item')}, {counted(summary.tokens, 'token')} "
        f"({summary.tokens_dtype}), {counted(summary.files, 'file')}, {human_bytes(summary.bytes)} "
        f"in {human_seconds(summary.seconds)}"
    )
    results.print(f"  format {summary.format}, positions: {positions}")


def _show_table(cache: str | None, as_json: bool) -> None:
    from tokcli.pipeline.export.capability import capability_table

    family = None
    if cache is not None:
        from tokcli.cache import open_cache

        family = str(open_cache(cache).manifest.configuration["model"]["family"])
    cases = capability_table(family)
    show({"cases": [case.to_json() for case in cases]}, as_json, lambda: _draw_table(cases))


def _draw_table(cases: list[Any]) -> None:
    from tokcli.pipeline.export.capability import ENGINES, FILES, collapsed

    rows = [(", ".join(row.families), row.media, row.tokens, *row.cells) for row in collapsed(cases)]
    results.print(table("", ("family", "media", "tokens", *ENGINES), rows))
    results.print(f"\n{', '.join(FILES)}: exact for all.")
    for line in legend(lambda text: f"[bold]{text}[/bold]"):
        results.print(line)


def legend(strong: Callable[[str], str]) -> list[str]:
    """What the words of the table mean."""
    return [
        f"{strong('fewer')} tokens are left by any method, whether it selects or merges.",
        f"{strong('exact')}: the model gets what it gets from the cache.",
        f"{strong('compact')}: the tokens that are left in a row, as `tokcli infer --positions compact`.",
        f"{strong('refused')}: it would be wrong unseen, or not enough is known; --json has the reasons.",
    ]
