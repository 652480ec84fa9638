"""What `tokcli methods NAME` tells is true: the golden cases exist, the recipe loads, needs are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_golden import COMMITTED, RUNNERS

from tokcli.methods import METHODS, describe, method_names, resolve
from tokcli.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
every = pytest.mark.parametrize("name", method_names())


@every
def test_golden_folders_are_run_and_committed(name: str) -> None:
    for folder in describe(name)["golden"]:
        assert folder in RUNNERS
        assert (COMMITTED / folder).is_dir()


def test_every_golden_folder_stands_on_a_page() -> None:
    assert {folder for name in method_names() for folder in describe(name)["golden"]} == RUNNERS.keys()


@every
def test_the_recipe_on_the_page_works(name: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(describe(name)["recipe"])
    recipe = load_recipe(path)
    assert recipe.description == describe(name)["summary"]
    assert recipe.compress is not None
    method = resolve(recipe.compress.method, keep=recipe.compress.keep, max_tokens=recipe.compress.max_tokens)
    assert method.name == name


@every
def test_a_page_tells_of_every_signal(name: str) -> None:
    page, method = describe(name), METHODS.get(name)
    assert page["needs"][0] == "tokens"
    assert not set(page["needs"]) & set(page["may_need"])
    assert method.needs <= set(page["needs"])
    assert set(method.needs_if) <= {*page["needs"], *page["may_need"]}


def test_the_page_of_dtd() -> None:
    page = describe("dtd")
    assert (page["needs"], page["may_need"], page["where"]) == (["tokens"], ["pixel_change"], "tokens")
    assert page["golden"] == ["dtd_feature", "dtd_pixel", "dtd_trigger"]
    assert describe("downsample")["where"] == "pixels"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_methods_of_shipped_recipes_resolve(path: Path) -> None:
    recipe = load_recipe(path)
    for step in (recipe.compress, recipe.derive):
        if step is not None and step.method != "auto":
            resolve(
                step.method,
                keep=step.keep,
                max_tokens=step.max_tokens,
                threshold=step.threshold,
                options=step.options,
            )
