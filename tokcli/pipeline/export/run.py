"""Cache in, folder in another format out. Nothing is written before it is sure that every item can be."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokcli import __version__
from tokcli.cache import Cache, open_cache
from tokcli.cache.codecs import codec_of
from tokcli.errors import OtherModelError, UsageError
from tokcli.models import load_prompt_layout
from tokcli.models.families import FAMILIES
from tokcli.pipeline.export.capability import ENGINES, Engine, Verdict, verdict
from tokcli.pipeline.export.engine import Asking
from tokcli.pipeline.export.facts import Facts, facts_of
from tokcli.pipeline.export.folder import check_output, measure, whole_folder, write_about
from tokcli.pipeline.export.settings import ExportSettings
from tokcli.pipeline.export.writer import Writer
from tokcli.pipeline.subjects import known, named, passing
from tokcli.storage import only_local


@dataclass(frozen=True)
class ExportSummary:
    """What was written."""

    format: str
    output: str
    items: int
    tokens: int
    tokens_dtype: str
    positions: dict[str, int]
    """Items by what an engine makes of their positions: exact, or compact."""
    files: int
    bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def export(
    settings: ExportSettings,
    on_begin: Callable[[int, list[str]], None] | None = None,
    on_item: Callable[[int, int], None] | None = None,
) -> ExportSummary:
    """Write the chosen items of a cache to a folder that appears whole, or not at all.

    Items go through one by one: memory holds one, and of sharded formats one shard at most. ``on_begin`` gets the
    number of items and notes, ``on_item`` how many of them are done and their tokens.

    Raises:
        UsageError: What is asked for can't be, with the reason: nothing was written.
        CacheError: The cache can't be read, or is damaged.
        TokcliError: The folder can't be written.
    """
    started = time.monotonic()
    cache = open_cache(settings.cache)
    output = only_local(settings.output, "exporting", "write it here, and copy it")
    check_output(output, cache.path, overwrite=settings.overwrite)
    rows = _chosen(cache, settings)
    plan = _plan(cache, rows, settings)
    dtype = _dtype(cache, settings)
    asking = _asking(cache, settings, plan, dtype)
    positions: dict[str, int] = dict(Counter(found.word for found in plan.values()))
    if on_begin is not None:
        on_begin(len(rows), _notes(cache, settings, positions, dtype))
    done = tokens = 0
    with whole_folder(output) as folder:
        writer = _writer(folder, cache, settings, dtype, asking)
        for row in rows:
            item = cache[row["id"]]
            writer.write(item)
            done, tokens = done + 1, tokens + len(item.kept)
            if on_item is not None:
                on_item(done, tokens)
        writer.close()
        write_about(folder, _about(cache, settings, done, tokens, dtype, positions))
    files, size = measure(output)
    seconds = round(time.monotonic() - started, 3)
    return ExportSummary(settings.format, str(settings.output), done, tokens, dtype, positions, files, size, seconds)


def _chosen(cache: Cache, settings: ExportSettings) -> list[dict[str, Any]]:
    """What the cache's table says of the items that are asked for, in the cache's order."""
    wanted = set(cache.ids())
    if settings.ids or settings.where is not None:
        table = known(cache)
        if settings.ids:
            wanted &= set(named(table.select(["id"]).to_pylist(), settings.ids, settings.cache))
        if settings.where is not None:
            wanted &= passing(table, settings.where)
    columns = ("id", "kind", "kept_tokens", "source_tokens", "views", "seconds_per_step")
    by_id = {row["id"]: row for row in cache.table(columns=columns).to_pylist() if row["id"] in wanted}
    chosen = [by_id[item_id] for item_id in cache.ids() if item_id in by_id][: settings.limit]
    if not chosen:
        raise UsageError(f"{settings.cache}: no item to export; `tokcli inspect {settings.cache}` lists its ids")
    return chosen


def _plan(cache: Cache, rows: Sequence[Mapping[str, Any]], settings: ExportSettings) -> dict[str, Verdict]:
    """What becomes of each item, by id. Raises ``UsageError`` for one that would be refused."""
    if settings.format not in ENGINES:
        return {row["id"]: Verdict("exact") for row in rows}
    family = str(cache.manifest.configuration["model"]["family"])
    if family not in FAMILIES:
        raise UsageError(f"{settings.cache} was made for the family {family!r}, of which nothing is known here")
    facts = facts_of(family)
    plan: dict[str, Verdict] = {}
    refused: list[tuple[str, Verdict]] = []
    for row in rows:
        found = plan[row["id"]] = verdict_of(row, facts, settings.format)
        if found.word == "refused" or (found.asked and not settings.allow_approx_positions):
            refused.append((row["id"], found))
    if refused:
        (item_id, first), count = refused[0], len(refused)
        more = f" and {count - 1} more of {len(rows)}" if count > 1 else ""
        raise UsageError(
            f"{settings.format} can't take {item_id}{more} ({family}): {first.why}; {first.remedy}. "
            "`tokcli export --table` shows what can be exported"
        )
    return plan


def verdict_of(row: Mapping[str, Any], facts: Facts, engine: Engine) -> Verdict:
    """The verdict on one item, by its row in the cache's table."""
    kept, source = row["kept_tokens"], row["source_tokens"]
    if not kept:
        return Verdict("refused", why="no token of it is left", remedy="leave it out with --ids or --where")
    # Methods that make frames smaller keep all tokens of a smaller grid, but an engine that counts them from the
    # picture itself expects those of its own size; and a grid doesn't count newlines.
    rows = source if engine == "ec-connector" or facts.separators else _grid_rows(row)
    return verdict(facts, row["kind"], "all" if kept == rows else "select", engine, seconds=row["seconds_per_step"])


def _grid_rows(row: Mapping[str, Any]) -> int:
    return sum(view["t"] * view["h"] * view["w"] for view in row["views"])


def _dtype(cache: Cache, settings: ExportSettings) -> str:
    """Type of the numbers in the files. Raises ``UsageError`` where the format doesn't have it."""
    stored = codec_of(str(cache.manifest.configuration["tokens_dtype"])).dtype
    written = stored if settings.tokens_dtype == "auto" else settings.tokens_dtype
    if settings.format in ("webdataset", "hf-datasets") and written == "bfloat16":
        if settings.tokens_dtype == "bfloat16":
            raise UsageError(
                f"{settings.format} has no bfloat16; take float32, which holds it without loss, or float16"
            )
        written = "float32"
    return written


def _asking(cache: Cache, settings: ExportSettings, plan: Mapping[str, Verdict], dtype: str) -> Asking | None:
    """How requests are made, for formats that have some. Raises ``OtherModelError`` for a model of another tower."""
    if not settings.prompt:
        return None
    identity = cache.manifest.configuration["model"]
    layout = load_prompt_layout(settings.model or str(identity["model"]))
    layout.check(identity)
    if layout.config.model_type != identity["family"]:
        raise OtherModelError(
            f"{layout.name} is of the family {layout.config.model_type}, the cache of {identity['family']}"
        )
    return Asking(layout, settings.prompt, settings.system, dtype, plan)


def _notes(cache: Cache, settings: ExportSettings, positions: Mapping[str, int], dtype: str) -> list[str]:
    notes = []
    kept = str(cache.manifest.configuration["tokens_dtype"])
    if kept != dtype:
        notes.append(f"the cache stores tokens as {kept}; they are written as {dtype}")
    if compact := positions.get("compact"):
        notes.append(
            f"{compact} items get compact positions: the engine numbers the tokens that are left one after another, as "
            "`tokcli infer --positions compact` does"
        )
    if settings.format == "ec-connector":
        notes.append("experimental: the layout is that of vLLM's example connector, see README.md in the folder")
    if not cache.complete:
        notes.append(f"{settings.cache} is not complete: what is missing in it is missing in the export")
    return notes


def _writer(folder: Path, cache: Cache, settings: ExportSettings, dtype: str, asking: Asking | None) -> Writer:
    if settings.format == "safetensors":
        from tokcli.pipeline.export.as_safetensors import SafetensorsWriter

        return SafetensorsWriter(folder, dtype, settings.shard_limits)
    if settings.format == "webdataset":
        from tokcli.pipeline.export.as_webdataset import WebDatasetWriter

        return WebDatasetWriter(folder, dtype, settings.shard_limits)
    if settings.format == "hf-datasets":
        from tokcli.pipeline.export.as_datasets import DatasetsWriter

        return DatasetsWriter(folder, dtype, settings.shard_limits, Path(settings.output).name)
    if settings.format == "ec-connector":
        from tokcli.pipeline.export.as_ec_connector import EncoderCacheWriter

        return EncoderCacheWriter(folder, dtype, cache.tower_fingerprint)
    assert asking is not None  # the settings refuse these formats without a prompt
    if settings.format == "vllm":
        from tokcli.pipeline.export.as_vllm import VllmWriter

        return VllmWriter(folder, asking)
    from tokcli.pipeline.export.as_sglang import SglangWriter

    return SglangWriter(folder, asking, grids=facts_of(asking.layout.config.model_type).mrope)


def _about(
    cache: Cache, settings: ExportSettings, items: int, tokens: int, dtype: str, positions: Mapping[str, int]
) -> dict[str, Any]:
    configuration = cache.manifest.configuration
    return {
        "tokcli": __version__,
        "format": settings.format,
        "items": items,
        "tokens": tokens,
        "tokens_dtype": dtype,
        "positions": dict(positions),
        "allow_approx_positions": settings.allow_approx_positions,
        "requests_model": settings.model,
        "cache": {
            "fingerprint": cache.fingerprint,
            "model": configuration["model"],
            "method": configuration["method"],
            "sampling": configuration["sampling"],
            "tokens_dtype": configuration["tokens_dtype"],
        },
    }
