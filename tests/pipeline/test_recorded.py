"""From a manifest back to the recipe and the command that made it: every method, every option."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tokcli.cache import Manifest
from tokcli.errors import MethodError, UsageError
from tokcli.methods import Compressor, method_names, resolve
from tokcli.pipeline.recorded import command_line, recorded_recipe
from tokcli.recipe import CompressRecipe


def manifest(compressor: Compressor, **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "model": {"model": "nano", "fingerprint": "f" * 64, "dtype": "float32"},
        "sampling": {"fps": 2.0, "num_frames": None, "max_frames": 7},
        "method": compressor.to_json(),
        "tokens_dtype": "bfloat16",
        "resize": "swscale",
        "decoder": "pyav",
        "seed": 3,
        "information": {
            "inputs": ["my clips", "b.csv"],
            "reading": {"path_col": "file", "id_col": "key", "columns": ["a", "b"]},
        },
    }
    return Manifest.create(**values | changes)


def compressors() -> list[Compressor]:
    """Each method with each of its budgets, some with options that are no defaults, and a composition."""
    found = [
        resolve("holitom", options={"beta": "none"}),
        resolve("dtd", options={"variant": "official", "criterion": "pixel"}),
        resolve("none", options={"signals": "keys,pixel_change"}),
        resolve("dtd,uniform", keep=0.1, options={"dtd.threshold": "0.4"}),
    ]
    for name in method_names():
        for budget in ({}, {"keep": 0.25}, {"max_tokens": 64}):
            try:
                found.append(resolve(name, seed=3, **budget))  # type: ignore[arg-type]
            except MethodError:
                continue  # that method has no such budget, or needs one
    return found


@pytest.mark.parametrize("compressor", compressors(), ids=lambda compressor: compressor.name)
def test_the_method_comes_back(compressor: Compressor) -> None:
    recipe = recorded_recipe(manifest(compressor), "cache")
    assert resolve(recipe.method, options=recipe.options, seed=recipe.seed) == compressor


def test_the_command_says_all_that_the_recipe_says(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[CompressRecipe] = []

    def take(recipe: CompressRecipe, quiet: bool, as_json: bool) -> None:
        taken.append(recipe)
        raise SystemExit(0)

    monkeypatch.setattr("tokcli.cli.compress.run_compress", take)
    ntsc = {"fps": 30000 / 1001, "num_frames": None, "max_frames": None}
    for sampling in ({"fps": 2.0, "num_frames": None, "max_frames": 7}, {"fps": None, "num_frames": 8}, ntsc):
        made = manifest(resolve("dtd,uniform", keep=0.1), sampling=sampling)
        made = Manifest({**made.configuration, "reuse_unchanged": 0.25}, made.information)
        recipe = recorded_recipe(made, Path("a cache"))
        monkeypatch.setattr(sys, "argv", shlex.split(command_line(recipe)))
        from tokcli.cli.app import main

        with pytest.raises(SystemExit):
            main()
        assert taken.pop() == recipe


def test_what_media_cannot_make() -> None:
    made = manifest(resolve("dtd"))
    rounded = Manifest({**made.configuration, "method_dtype": "float16"}, {"derived_from": {"cache": "full"}})
    with pytest.raises(UsageError, match="was derived from full, whose stored tokens were rounded"):
        recorded_recipe(rounded, "cache")
    with pytest.raises(UsageError, match="names no inputs; name them"):
        recorded_recipe(Manifest(made.configuration), "cache")
    assert recorded_recipe(Manifest(made.configuration), "cache", ["x"]).inputs == ["x"]
