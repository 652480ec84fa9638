"""Recipes: what is accepted, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokcli.checking import check
from tokcli.errors import RecipeError
from tokcli.recipe import CompressRecipe, load_recipe

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.description


def test_overrides_are_dotted_yaml_values(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("compress: {inputs: [a], output: b}\n")
    recipe = load_recipe(path, {"compress.sampling.fps": "2.5", "compress.inputs": "[x, y]"})
    assert recipe.compress is not None
    assert recipe.compress.sampling.fps == 2.5
    assert recipe.compress.inputs == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("compress: {inputs: [a], output: b, metod: dtd}", "unknown key 'compress.metod'; did you mean 'method'"),
        ("compress: {inputs: [a], output: b, sampling: {fsp: 1}}", "unknown key 'compress.sampling.fsp'"),
        ("compress: {inputs: [], output: b}", "compress.inputs"),
        ("compress: {inputs: [a], output: b, sampling: {fps: 0}}", "compress.sampling.fps must be above 0, got 0"),
        ("infer: {cache: c}", "give either prompt or prompts"),
        ("infer: {cache: c, prompt: ['']}", "prompt must not be empty"),
        ("{}", "at least one of render, compress, derive, infer, eval"),
        ("- a", "a recipe is a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_faults_are_one_line_that_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sampling": {"fps": -3.0}}, "compress: --fps must be above 0, got -3.0"),
        ({"sampling": {"num_frames": "many"}}, "compress: --num-frames must be a whole number, got 'many'"),
        ({"tokens_dtype": "int9"}, "compress: --tokens-dtype must be 'auto', 'exact', "),
        ({"seed": None}, "compress: --seed must be a whole number, got None"),
    ],
)
def test_on_the_command_line_a_fault_names_the_flag(values: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        check(CompressRecipe, {"inputs": ["x"], "output": "y", **values}, "compress", flags=True)
    assert str(caught.value).startswith(message)


def test_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot read the recipe: No such file"):
        load_recipe(tmp_path / "none.yaml")


def test_sizes_are_written_as_people_do() -> None:
    recipe = check(CompressRecipe, {"inputs": ["x"], "output": "y", "decoder_memory": "2GiB"}, "compress")
    assert recipe.decoder_memory == 2 << 30
    recipe = check(CompressRecipe, {"inputs": ["x"], "output": "y", "limits": {"max_bytes": "20GB"}}, "compress")
    assert recipe.limits.max_bytes == 20_000_000_000
    for size in ("lots", "100MB", -1):
        with pytest.raises(RecipeError, match="decoder_memory"):
            check(CompressRecipe, {"inputs": ["x"], "output": "y", "decoder_memory": size}, "compress")
