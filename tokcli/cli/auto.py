"""`tokcli compress --method auto`: the method of the cache that is there, or the choice of a search on a sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokcli.cli.output import note, warn

if TYPE_CHECKING:
    from tokcli.recipe import CompressRecipe

_SHARED = (
    "inputs",
    "model",
    "seed",
    "sampling",
    "resize",
    "dtype",
    "device",
    "path_col",
    "id_col",
    "workers",
    "timeout",
)


def with_method(recipe: CompressRecipe, quiet: bool) -> CompressRecipe:
    """The recipe with a method in the place of ``auto``."""
    from tokcli.cache.layout import MANIFEST

    if (Path(recipe.output) / MANIFEST).is_file() and not recipe.overwrite:
        return _of_cache(recipe, quiet)
    return _searched(recipe, quiet)


def _of_cache(recipe: CompressRecipe, quiet: bool) -> CompressRecipe:
    from tokcli.cache.manifest import read_manifest
    from tokcli.pipeline.progress import describe_method

    stored = read_manifest(Path(recipe.output)).configuration["method"]
    if not quiet:
        note(f"auto: {recipe.output} was made with {describe_method(stored)}, which is taken again")
    return _named(recipe, _method_of(stored))


def _method_of(stored: dict[str, Any]) -> dict[str, Any]:
    """Keys of a recipe that give the method of a manifest."""
    options = {
        f"{stage['name']}.{key}": str(value)
        for stage in stored["methods"]
        for key, value in stage["options"].items()
        if value is not None
    }
    return {"method": ",".join(stage["name"] for stage in stored["methods"]), "options": options}


def _searched(recipe: CompressRecipe, quiet: bool) -> CompressRecipe:
    from tokcli.cli.tune import run_tune
    from tokcli.evaluate.tune_report import SHARED
    from tokcli.recipe import TuneRecipe, check

    values = {name: getattr(recipe, name) for name in ("inputs", *SHARED)}
    values |= {"qa": recipe.qa, "output": f"{recipe.output.rstrip('/')}.tune", "cache": recipe.output}
    if recipe.retain is not None:
        values["retain"] = recipe.retain
    tuning = run_tune(check(TuneRecipe, values, "compress --method auto"), quiet)
    document = tuning.document
    if not quiet:
        note(f"auto: {document['command']}")
        note(f"auto: {tuning.summary}; more in {tuning.folder}")
        if document["advice"]:
            warn(document["advice"])
    return _named(recipe, document["chosen"])


def _named(recipe: CompressRecipe, method: dict[str, Any]) -> CompressRecipe:
    return recipe.model_copy(update={"retain": None, "qa": None, **method})
