"""What can be derived from a cache, and how: everything that is refused is refused here, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from tokcli.cache import Cache, ErrorRow, Manifest, open_cache
from tokcli.cache.codebook import KEY, Codebook, codebook_of
from tokcli.cache.codecs import codec_of
from tokcli.errors import UsageError
from tokcli.methods import Compressor
from tokcli.pipeline.codebooks import codebook_for
from tokcli.pipeline.default_codec import resolved_codec
from tokcli.pipeline.further import Further, further_on, stored_dtypes
from tokcli.pipeline.preflight import library_versions
from tokcli.pipeline.reduction import stored
from tokcli.pipeline.targets import Target, check_targets, wanted_caches
from tokcli.recipe import DeriveRecipe
from tokcli.storage import Location
from tokcli.types import EncodedItem, MediaItem


@dataclass(frozen=True)
class Derivation:
    """How one cache comes from the source."""

    target: Target
    further: Further
    """What is run on the rows of the source."""

    @property
    def tower_dtype(self) -> torch.dtype | None:
        return self.further.tower_dtype

    def make(self, item: EncodedItem) -> EncodedItem:
        """The item as compressing it from the media keeps it. Raises ``MethodError``."""
        return replace(item, kept=stored(self.further.run(item), self.target.torch_dtype, item.id))


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
    _check_prune(recipe, source)
    configuration = source.manifest.configuration
    seed = int(configuration.get("seed", 0)) if recipe.seed is None else recipe.seed
    wanted = wanted_caches(recipe, seed)
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


def _check_prune(recipe: DeriveRecipe, source: Cache) -> None:
    if recipe.prune and recipe.limit is not None:
        raise UsageError(
            f"--prune drops all that {recipe.cache} does not have, and --limit looks at some of it only; leave one out"
        )
    if recipe.prune and not source.complete:
        raise UsageError(
            f"--prune would drop what {recipe.cache} does not have yet: it is not complete; run what makes it again "
            "first"
        )


def _derivation(source: Cache, folder: Location, further: Compressor, recipe: DeriveRecipe, seed: int) -> Derivation:
    if folder.resolve() == source.path.resolve():
        raise UsageError(f"{folder} is the cache to derive from; name another folder with -o")
    configuration = source.manifest.configuration
    before = Compressor.from_json(configuration["method"])
    run = further_on(source, further)
    compressor = before.followed_by(further) if run.composed else further
    held, computed = stored_dtypes(source)
    # What the methods get: the tower's own numbers, or what reading gives.
    exact = computed if run.tower_dtype is not None else codec_of(held).dtype
    changed: dict[str, Any] = {
        "method": compressor.to_json(),
        "seed": seed,
        "tokens_dtype": resolved_codec(recipe.tokens_dtype, further, exact=exact, held=held),
    }
    codebook = _codebook(source, str(changed["tokens_dtype"]), folder, recipe)
    if codebook is not None:
        changed[KEY] = codebook.digest
    if run.tower_dtype is None:
        # Told apart from a cache made from the media, where methods see tokens before they are rounded.
        changed.setdefault("method_dtype", configuration.get("method_dtype", held))
    manifest = Manifest(
        configuration={**{key: value for key, value in configuration.items() if key != KEY}, **changed},
        information={
            **source.manifest.information,
            "versions": library_versions(),
            "derived_from": {"cache": str(source.path), "configuration": source.manifest.digest},
        },
    )
    return Derivation(Target(folder, compressor, manifest, codebook), run)


def _codebook(source: Cache, codec: str, folder: Location, recipe: DeriveRecipe) -> Codebook | None:
    """The source's own where tokens are stored again as they were, else as the recipe says."""
    own = codebook_of(source.path, source.manifest)
    if recipe.codebook is None and own is not None and codec == source.manifest.configuration["tokens_dtype"]:
        return own
    return codebook_for(codec, folder, reuse=recipe.codebook, overwrite=recipe.overwrite, source=source)
