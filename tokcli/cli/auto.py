"""`tokcli compress --method auto`: the method of the cache that is there, or the choice of a search on a sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokcli.cli.output import note, warn
from tokcli.errors import MethodError

if TYPE_CHECKING:
    from tokcli.recipe import CompressRecipe


def with_method(recipe: CompressRecipe, quiet: bool) -> CompressRecipe:
    """The recipe with a method in the place of ``auto``."""
    from tokcli.cache.layout import MANIFEST
    from tokcli.storage import location

    if (location(recipe.output) / MANIFEST).is_file() and not recipe.overwrite:
        return _of_cache(recipe, quiet)
    return _searched(recipe, quiet)


def _of_cache(recipe: CompressRecipe, quiet: bool) -> CompressRecipe:
    from tokcli.cache.manifest import read_manifest
    from tokcli.pipeline.progress import describe_method
    from tokcli.storage import location

    stored = read_manifest(location(recipe.output)).configuration["method"]
    if not quiet:
        note(f"auto: {recipe.output} was made with {describe_method(stored)}, which is taken again")
        document = _last_search(recipe, stored)
        if document and not document["certain"]:
            warn(_doubt(document))
        if ignored := _ignored(recipe, document):
            warn(f"without effect, for {recipe.output} is there already: {ignored}; --overwrite tunes again")
    return _named(recipe, _method_of(stored))


def _last_search(recipe: CompressRecipe, stored: dict[str, Any]) -> dict[str, Any]:
    """What the search for this cache's method found; empty where it is gone or chose another."""
    from tokcli.evaluate.tune_report import DOCUMENT
    from tokcli.methods import resolve

    try:
        document: dict[str, Any] = json.loads((Path(_search_folder(recipe)) / DOCUMENT).read_text(encoding="utf-8"))
        chosen = dict(document["chosen"])
        chose = resolve(chosen.pop("method"), **chosen, seed=document["seed"]).to_json()
    except (OSError, ValueError, KeyError, TypeError, MethodError):
        return {}
    return document if chose["methods"] == stored["methods"] else {}


def _doubt(document: dict[str, Any]) -> str:
    """What to do about a choice that is not certain; `compress` has none of the flags of `tune`."""
    what = "nothing was found to keep enough" if document["ci"] is None else "the choice is uncertain"
    by_hand = "`tokcli tune` {} and give its choice with --method"
    if document["out_of_time"]:
        return f"{what}, for time ran out: run {by_hand.format('with --answer-time 0')}"
    if "--" in document["advice"]:
        return f"{what}: run {by_hand.format('yourself')}; {document['advice']}"
    return f"{what}: {document['advice']}"


def _ignored(recipe: CompressRecipe, document: dict[str, Any]) -> str:
    """Flags that ask for another search than the one that chose the method."""
    from tokcli.evaluate.tune_report import absolute

    ignored = []
    if recipe.retain is not None and recipe.retain != document.get("retain"):
        ignored.append(f"--retain {recipe.retain:g}")
    if recipe.qa is not None and absolute(recipe.qa) != document.get("qa"):
        ignored.append(f"--qa {recipe.qa}")
    return ", ".join(ignored)


def _search_folder(recipe: CompressRecipe) -> str:
    return f"{recipe.output.rstrip('/')}.tune"


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
    from tokcli.checking import check
    from tokcli.cli.tune import run_tune
    from tokcli.evaluate.tune_report import SHARED
    from tokcli.recipe import TuneRecipe

    values = {name: getattr(recipe, name) for name in ("inputs", *SHARED)}
    values |= {"qa": recipe.qa, "output": _search_folder(recipe), "cache": recipe.output}
    values |= {"overwrite": recipe.overwrite, "retry_errors": recipe.retry_errors}
    if recipe.retain is not None:
        values["retain"] = recipe.retain
    tuning = run_tune(check(TuneRecipe, values, "compress --method auto", flags=True), quiet)
    document = tuning.document
    if not quiet:
        note(f"auto: {document['command']}")
        note(f"auto: {tuning.summary}; more in {tuning.folder}")
        if not document["certain"]:
            warn(_doubt(document))
    return _named(recipe, document["chosen"])


def _named(recipe: CompressRecipe, method: dict[str, Any]) -> CompressRecipe:
    return recipe.model_copy(update={"retain": None, "qa": None, **method})
