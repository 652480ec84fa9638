"""What can be derived from a cache, and how: everything that is refused is refused here, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tokcli.cache import Cache, ErrorRow, Manifest, open_cache
from tokcli.errors import MethodError, UsageError
from tokcli.methods import Compressor, resolve
from tokcli.methods.budget import grid_tokens
from tokcli.methods.compose import chain
from tokcli.pipeline.preflight import library_versions
from tokcli.pipeline.reduction import stored, with_structural
from tokcli.pipeline.restore import announced_views, kept_tokens, with_announced
from tokcli.pipeline.targets import DTYPES, Target, check_targets, parse_also
from tokcli.recipe import DeriveRecipe
from tokcli.types import EncodedItem, MediaItem


@dataclass(frozen=True)
class Derivation:
    """How one cache comes from the source."""

    target: Target
    further: Compressor
    """What is run on the rows of the source."""
    composed: bool
    """Whether the source's own method comes before it; else the source has all tokens."""
    tower_dtype: torch.dtype | None
    """What the source's tokens were before they were stored; None where storing rounded them."""
    shrunk: bool
    """Whether the source's frames were made smaller before the tower."""

    def make(self, item: EncodedItem) -> EncodedItem:
        """The item as compressing it from the media keeps it. Raises ``MethodError``."""
        first = item.kept
        rows = grid_tokens(item.views) if self.shrunk else item.source_tokens
        if first.assignment is not None:
            rows = len(first.assignment)
        visual = kept_tokens(item, rows, self.tower_dtype)
        announced = announced_views(item)
        if self.target.compressor.streaming:
            session = self.further.start(item.id, announced)
            kept = session.push(visual)
            kept = replace(kept, stats=session.finish())
        else:
            kept = self.further.compress(visual, item.id)
        structural = visual.structural[kept.source]
        if self.composed:
            kept = chain(first, kept, rows)
        kept = with_announced(with_structural(kept, structural), announced, item.views)
        return replace(item, kept=stored(kept, self.target.torch_dtype))


@dataclass(frozen=True)
class DeriveJob:
    """A checked derivation: what is there, and what to make of it."""

    recipe: DeriveRecipe
    source: Cache
    items: tuple[MediaItem, ...]
    hashes: dict[str, str]
    """By item: blake3 of its media file."""
    failures: tuple[ErrorRow, ...]
    derivations: tuple[Derivation, ...]

    @property
    def ids(self) -> list[str]:
        return [item.id for item in self.items]


def check_derivation(recipe: DeriveRecipe) -> DeriveJob:
    """Open the source and refuse what cannot be derived from it; nothing is written."""
    source = open_cache(recipe.cache)
    configuration = source.manifest.configuration
    seed = int(configuration.get("seed", 0)) if recipe.seed is None else recipe.seed
    further = resolve(
        recipe.method,
        keep=recipe.keep,
        max_tokens=recipe.max_tokens,
        threshold=recipe.threshold,
        options=recipe.options,
        seed=seed,
    )
    wanted = [(Path(recipe.output), further), *(parse_also(text, seed) for text in recipe.also)]
    derivations = tuple(_derivation(source, folder, method, recipe, seed) for folder, method in wanted)
    check_targets([one.target for one in derivations], recipe.overwrite)
    names = ("id", "path", "source_bytes", "source_modified_ns", "source_blake3")
    rows = source.table(columns=names).to_pylist()[: recipe.limit]
    failed = source.errors().drop_columns(["sequence", "configuration"]).to_pylist()
    if recipe.limit is not None:
        failed = failed[: recipe.limit - len(rows)]
    return DeriveJob(
        recipe,
        source,
        tuple(MediaItem(row["id"], row["path"], row["source_bytes"], row["source_modified_ns"]) for row in rows),
        {row["id"]: row["source_blake3"] for row in rows},
        tuple(ErrorRow(**row) for row in failed),
        derivations,
    )


def _derivation(source: Cache, folder: Path, further: Compressor, recipe: DeriveRecipe, seed: int) -> Derivation:
    if folder.resolve() == source.path.resolve():
        raise UsageError(f"{folder} is the cache to derive from; name another folder with -o")
    configuration = source.manifest.configuration
    before = Compressor.from_json(configuration["method"])
    _check_method(source, before, further)
    composed = before.name != "none"
    compressor = before.followed_by(further) if composed else further
    held = str(configuration["tokens_dtype"])
    computed = str(configuration["model"].get("dtype", held))
    # Float32 holds the other two exactly; between the others something is always rounded away.
    exact = held in (computed, "float32") and "method_dtype" not in configuration
    changed: dict[str, Any] = {
        "method": compressor.to_json(),
        "seed": seed,
        "tokens_dtype": held if recipe.tokens_dtype == "auto" else recipe.tokens_dtype,
    }
    if not exact:
        # Told apart from a cache made from the media, where methods see tokens before they are rounded.
        changed.setdefault("method_dtype", configuration.get("method_dtype", held))
    manifest = Manifest(
        configuration={**configuration, **changed},
        information={
            **source.manifest.information,
            "versions": library_versions(),
            "derived_from": {"cache": str(source.path), "configuration": source.manifest.digest},
        },
    )
    tower_dtype = DTYPES[computed] if exact else None
    return Derivation(Target(folder, compressor, manifest), further, composed, tower_dtype, before.pixel_scale != 1.0)


def _check_method(source: Cache, before: Compressor, further: Compressor) -> None:
    """Raise ``MethodError`` for methods that need what the cache does not hold."""
    for stage in further.before_tokens:
        raise MethodError(
            f"method {stage['name']!r} works before there are tokens, and a cache holds tokens only; "
            f"use `tokcli compress --method {further.name}` on the media"
        )
    first = before.to_json()["methods"][0]
    held = Compressor.from_json({"methods": [first]}).needs if first["name"] == "none" else frozenset[str]()
    missing = sorted(further.needs - held - {"tokens"})
    if missing:
        there = f"it holds {', '.join(sorted(held))}" if held else "it holds none"
        raise MethodError(
            f"method {further.name!r} needs the signal {missing[0]!r}, which {source.path} does not hold ({there}); "
            f"make it from the media with --method none --keep-signals {','.join(sorted(further.needs - {'tokens'}))}"
        )
