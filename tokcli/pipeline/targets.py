"""The caches that one run fills: what each is made with, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import torch

from tokcli.cache import CacheWriter, ErrorRow, Manifest, open_cache
from tokcli.cache.codebook import Codebook
from tokcli.cache.codecs import codec_of
from tokcli.cache.folder import check_configuration
from tokcli.cache.part import Part
from tokcli.cache.records import clean_text
from tokcli.errors import UsageError
from tokcli.media import ScanResult
from tokcli.methods import Compressor, resolve
from tokcli.pipeline.over_budget import over_budget
from tokcli.pipeline.progress import CompressSummary, describe_method
from tokcli.recipe import CompressRecipe, DeriveRecipe
from tokcli.storage import Location, location
from tokcli.types import EncodedItem, MediaItem

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True, eq=False)
class Target:
    """A cache that a run is to fill."""

    folder: Location
    compressor: Compressor
    manifest: Manifest
    codebook: Codebook | None = None
    """Of codecs that have one; the manifest names its digest."""

    def open(self, overwrite: bool = False, part: Part | None = None) -> CacheWriter:
        """Take the cache, or a part of it, into use for writing; raises what ``CacheWriter`` does."""
        return CacheWriter(self.folder, self.manifest, overwrite=overwrite, codebook=self.codebook, part=part)

    @property
    def tokens_dtype(self) -> str:
        """What tokens are stored as, the name of a codec."""
        return str(self.manifest.configuration["tokens_dtype"])

    @property
    def torch_dtype(self) -> torch.dtype:
        """What they are read as."""
        return DTYPES[codec_of(self.tokens_dtype).dtype]


class Output:
    """A target that is open for writing."""

    def __init__(self, target: Target, writer: CacheWriter) -> None:
        self.target, self.writer = target, writer
        self.done = 0
        self.skipped = 0
        """In the cache when the run began."""
        self.failed = 0
        """In this run, or before and not tried again."""
        self.removed: tuple[str, ...] = ()
        """Items of the cache that are no inputs any more."""
        self.pruned = False
        """Whether they were dropped."""
        self.missing = 0
        """Of all inputs, those that the cache does not have at the end of the run: other parts are to bring them."""

    def is_due(self, item: MediaItem, source_hash: Callable[[], str], retry_errors: bool) -> bool:
        """Whether the item has to be made; what need not is counted."""
        state = self.writer.state(item, source_hash)
        if state == "done":
            self.skipped += 1
        elif state == "failed" and not retry_errors:
            self.failed += 1
        else:
            return True
        return False

    def write(self, item: EncodedItem) -> None:
        self.writer.write(item)
        self.done += 1

    def look_for_removed(self, expected_ids: Iterable[str], prune: bool, unlisted: Iterable[str] = ()) -> None:
        """Note what the cache holds beyond these inputs, and with ``prune`` drop it.

        What lies in one of the folders ``unlisted``, which could not be listed, counts as still there.
        """
        unknown = tuple(f"{clean_text(folder)}/" for folder in unlisted)
        self.removed = tuple(item_id for item_id in self.writer.others(expected_ids) if not item_id.startswith(unknown))
        if prune and self.removed:
            self.writer.prune(set(self.removed))
            self.pruned = True

    def fail(self, row: ErrorRow) -> None:
        self.writer.fail(row)
        self.failed += 1

    def finish(self, expected_ids: Iterable[str]) -> None:
        """Commit, and mark the cache as complete where it is."""
        self.missing = len(self.writer.finish(expected_ids))


def check_targets(targets: Sequence[Target], overwrite: bool) -> None:
    """Raise ``UsageError`` for a folder that stands twice, ``CacheConflictError`` for a cache made otherwise.

    Looked at for all before any is opened: opening one for writing takes away its mark of being complete.
    """
    folders = [target.folder.resolve() for target in targets]
    for folder in folders:
        if folders.count(folder) > 1:
            raise UsageError(f"{folder} stands twice as an output; give each cache a folder of its own")
    if not overwrite:
        for target in targets:
            check_configuration(target.folder, target.manifest)


def wanted_caches(recipe: CompressRecipe | DeriveRecipe, seed: int) -> list[tuple[Location, Compressor]]:
    """The folders that a recipe fills, its output first, each with its method. Raises ``UsageError``."""
    compressor = resolve(
        recipe.method,
        keep=recipe.keep,
        max_tokens=recipe.max_tokens,
        threshold=recipe.threshold,
        options=recipe.options,
        seed=seed,
    )
    return [(location(recipe.output), compressor), *(parse_also(text, seed) for text in recipe.also)]


def parse_also(text: str, seed: int) -> tuple[Location, Compressor]:
    """``NAME[@BUDGET][:OPTION=VALUE,...]=FOLDER`` as a folder and a compressor.

    A budget below 1, or written with a point, is a share; any other number is the most tokens. Raises ``UsageError``.
    """
    shape = "NAME@BUDGET=FOLDER, for example dtd@0.1=cache2 or dtd:threshold=0.5,criterion=pixel=cache3"
    head, colon, tail = text.partition(":")
    if "=" in head:  # no options: a colon belongs to the folder
        head, equals, folder = text.partition("=")
        colon = given = ""
    else:
        given, equals, folder = tail.rpartition("=")
    name, at, budget = (part.strip() for part in head.partition("@"))
    if not (name and equals and folder.strip()) or (colon and not given):
        raise UsageError(f"--also {text!r} is not {shape}")
    options: dict[str, str] = {}
    for part in filter(None, given.split(",")):
        key, equals, value = part.partition("=")
        if equals:
            options[key.strip()] = value.strip()
        elif options:  # a value with a comma, as in signals=a,b
            options[next(reversed(options))] += f",{part.strip()}"
        else:
            raise UsageError(f"--also {text!r}: {part!r} is not OPTION=VALUE; write {shape}")
    try:
        is_share = "." in budget or "e" in budget or float(budget or 1) < 1
        keep = float(budget) if at and is_share else None
        max_tokens = int(budget) if at and not is_share else None
    except ValueError:
        raise UsageError(f"--also {text!r}: the budget {budget!r} is no number; write {shape}") from None
    return location(folder.strip()), resolve(name, keep=keep, max_tokens=max_tokens, options=options, seed=seed)


def check_same_pixels(wanted: Sequence[tuple[Location, Compressor]]) -> None:
    """Raise ``UsageError`` where methods want other frames: what one decoding and one encoding gives is for all."""
    for folder, compressor in wanted:
        for other_folder, other in wanted:
            for stage in compressor.before_tokens:
                if stage not in other.before_tokens:
                    raise UsageError(
                        f"method {stage['name']!r} of {folder} works before there are tokens, so {other_folder} cannot "
                        "come from the same encoding; compress it in a run of its own"
                    )


def finish(outputs: Sequence[Output], recipe: CompressRecipe, scan: ScanResult, part: Part | None = None) -> None:
    """End a run that came to its end: commit, look for inputs that are gone, and mark the caches that are complete."""
    for output in outputs:
        if recipe.limit is None and part is None:
            output.look_for_removed(scan.ids, recipe.prune, (failure.id for failure in scan.failures))
        output.finish(scan.ids)


def notes_of(outputs: Sequence[Output], scan: ScanResult, prune: bool = False) -> list[str]:
    """What a run says of itself before it begins."""
    model = outputs[0].target.manifest.configuration["model"]
    notes = [f"model {model['model']} ({model['family']}, {model['dtype']})"]
    for output in outputs:
        target = output.target
        notes.append(f"method {describe_method(target.compressor.to_json())}")
        notes.append(f"tokens stored as {target.tokens_dtype} in {target.folder}")
    if scan.passed_over:
        notes.append(f"passed over in folders: {scan.passed_over}, not media by their names")
    if scan.elsewhere:
        notes.append(f"inputs of other shards: {len(scan.elsewhere)}")
    return notes + [text for output in outputs if (text := _nothing_shared(output, scan, prune))]


def _nothing_shared(output: Output, scan: ScanResult, prune: bool) -> str | None:
    """For a cache that has none of the inputs, but files of the same names: they may be there under other ids; and for
    one of which nothing would be left."""
    there = output.writer.others(failure.id for failure in scan.failures)
    here = [clean_text(item.id) for item in scan.items]
    if not there or not here or not set(there).isdisjoint(here):
        return None
    by_name = {item_id.rpartition("/")[2]: item_id for item_id in there}
    pairs = ((by_name[name], item_id) for item_id in here if (name := item_id.rpartition("/")[2]) in by_name)
    pair = next(pairs, None)
    if pair is None and not prune:
        return None
    old, new = pair or (there[0], here[0])
    fate = "then --prune drops those that it has" if prune else "beside those that it has"
    items = f"{len(there):,} item" + "s" * (len(there) != 1)
    return (
        f"{output.target.folder} has {items} and none of these inputs (it has {old}, this run {new}): all are encoded "
        f"and stored, {fate}. If they are the same files, stop now and write their paths as they were written then"
    )


def summarize(
    outputs: Sequence[Output], items: int, ids: Collection[str], seconds: float, part: Part | None = None
) -> CompressSummary:
    """Where the caches stand after a run over ``items`` inputs; ``ids`` are those that could be looked at."""
    first, *also = (_summary(output, items, ids, seconds, part) for output in outputs)
    return replace(first, also=tuple(also))


def _summary(output: Output, items: int, ids: Collection[str], seconds: float, part: Part | None) -> CompressSummary:
    target = output.target
    model: Mapping[str, object] = target.manifest.configuration["model"]
    cache = open_cache(target.folder)
    columns = ("source_tokens", "kept_tokens", "source_bytes", "duration_seconds")
    found = cache.select(item_id for item_id in map(clean_text, ids) if item_id in cache)
    table = found.table(columns=["id", "views", "hidden_size", *columns])  # of a part: its own shards only are read
    source_tokens, kept_tokens, source_bytes, media_seconds = (pc.sum(table[name]).as_py() or 0 for name in columns)
    # A row's own width: with DeepStack, a token is several vectors.
    numbers = pc.sum(pc.multiply(table["source_tokens"], pc.cast(table["hidden_size"], pa.int64()))).as_py() or 0
    return CompressSummary(
        items=items,
        done=output.done,
        failed=output.failed,
        skipped=output.skipped,
        source_tokens=source_tokens,
        kept_tokens=kept_tokens,
        token_bytes=numbers * DTYPES[str(model.get("dtype", codec_of(target.tokens_dtype).dtype))].itemsize,
        source_bytes=source_bytes,
        cache_bytes=sum(shard.path.stat().st_size for shard in cache.index.shards),
        media_seconds=round(media_seconds, 3),
        seconds=round(seconds, 3),
        output=str(target.folder),
        method=target.compressor.to_json(),
        model=str(model["model"]),
        removed=output.removed,
        pruned=output.pruned,
        over_budget=over_budget(target.compressor, table),
        shard=None if part is None else str(part),
        missing=output.missing,
        others=len(cache) - len(found),
    )
