"""From a cache's manifest back to the recipe, and the command, that goes on with it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokcli.cache import Manifest
from tokcli.checking import check
from tokcli.errors import UsageError
from tokcli.methods import METHODS, Compressor
from tokcli.recipe import CompressRecipe

READING = ("path_col", "id_col", "columns")
"""How manifests are read: noted with the inputs where it is not the default."""


def recorded_recipe(manifest: Manifest, output: str | Path, inputs: Sequence[str] | None = None) -> CompressRecipe:
    """The compression that makes items as the cache has them; ``inputs`` in place of those that were noted.

    Raises ``UsageError`` where media alone cannot make them, or no inputs are known, ``MethodError`` for a method that
    is not installed.
    """
    configuration, information = manifest.configuration, manifest.information
    if "method_dtype" in configuration:
        source = information.get("derived_from", {}).get("cache", "its source")
        raise UsageError(
            f"{output} was derived from {source}, whose stored tokens were rounded before the method saw them: "
            "media cannot make the same; run the `tokcli derive` command again"
        )
    inputs = list(inputs or information.get("inputs") or ())
    if not inputs:
        raise UsageError(f"the manifest of {output} names no inputs; name them")
    compressor = Compressor.from_json(configuration["method"])
    values: dict[str, Any] = {
        "inputs": inputs,
        "output": str(output),
        "model": configuration["model"]["model"],
        "dtype": configuration["model"]["dtype"],
        "method": compressor.name,
        "options": _options(compressor),
        "seed": configuration.get("seed", 0),
        "sampling": configuration["sampling"],
        "reuse_unchanged": configuration.get("reuse_unchanged"),
        **{name: configuration[name] for name in ("decoder", "resize", "tokens_dtype")},
        **information.get("reading", {}),
    }
    recipe: CompressRecipe = check(CompressRecipe, values, f"the manifest of {output}")
    return recipe


def command_line(recipe: CompressRecipe) -> str:
    """What to type for the recipe, as far as `recorded_recipe` sets it; quoted for a shell."""
    sampling = recipe.sampling
    words = ["tokcli", "compress", *recipe.inputs, "-o", recipe.output, "--method", recipe.method]
    for key, value in recipe.options.items():
        words += ["--set", f"{key}={value}"]
    flags = {
        "--seed": recipe.seed or None,
        "--model": recipe.model,
        "--dtype": recipe.dtype,
        "--tokens-dtype": recipe.tokens_dtype,
        "--fps": None if sampling.fps is None else exact(sampling.fps),
        "--num-frames": sampling.num_frames,
        "--max-frames": sampling.max_frames,
        "--reuse-unchanged": recipe.reuse_unchanged,
        "--decoder": recipe.decoder,
        "--resize": recipe.resize,
        "--path-col": recipe.path_col if recipe.path_col != "path" else None,
        "--id-col": recipe.id_col,
        "--columns": None if recipe.columns is None else ",".join(recipe.columns),
    }
    for flag, setting in flags.items():
        words += [] if setting is None else [flag, str(setting)]
    return shlex.join(words)


def exact(number: float) -> str:
    """A number as it is written on a command line, in full: a cache made at another rate would be refused.

    >>> exact(2.0), exact(30000 / 1001)
    ('2', '29.97002997002997')
    """
    return repr(number).removesuffix(".0")


def _options(compressor: Compressor) -> dict[str, str]:
    """The options that are not the defaults, as texts by ``method.option``; the seed is an option of its own."""
    found = {}
    for stage in compressor.to_json()["methods"]:
        fields = METHODS.get(stage["name"]).options.model_fields
        for key, value in stage["options"].items():
            if value != fields[key].get_default() or key == "seed":
                text = str(value).lower() if value is None or isinstance(value, bool) else str(value)
                found[f"{stage['name']}.{key}"] = text
    return found
