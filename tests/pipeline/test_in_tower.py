"""From media to answers with tokens reduced inside the tower: caches, what follows, what is refused at the start."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cache_sameness import assert_same_caches

from tokcli.cache import open_cache, verify_cache
from tokcli.errors import MethodError, ModelError, UsageError
from tokcli.models import Request, load_language_model
from tokcli.pipeline.compress import compress
from tokcli.pipeline.derive import derive
from tokcli.recipe import CompressRecipe, DeriveRecipe, SamplingRecipe
from tokcli.types import EncodedItem

MODELS = ["nano", "nano-clip"]


@pytest.fixture(scope="module")
def media(copied: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("media"), 1)


def run(media: Path, output: Path, **more: Any) -> list[EncodedItem]:
    sampling = SamplingRecipe(fps=None, num_frames=4)
    options = {"workers": 1, "sampling": sampling, "tokens_dtype": "float32", **more}
    summary = compress(CompressRecipe(inputs=[str(media)], output=str(output), **options))
    assert summary.failed == 0 and verify_cache(output) == []
    cache = open_cache(output)
    return [cache[item_id] for item_id in sorted(cache.ids())]


@pytest.mark.parametrize("model", MODELS)
def test_a_cache_tells_what_became_of_every_token(media: Path, tmp_path: Path, model: str) -> None:
    full = run(media, tmp_path / "full", model=model, method="none")
    for item, whole in zip(run(media, tmp_path / "tome", model=model, method="tome", keep=0.5), full):
        kept = item.kept
        assert item.source_tokens == len(whole.kept) and item.views == whole.views
        per_step = item.views[0].grid[1] * item.views[0].grid[2]
        assert torch.bincount(kept.coords[:, 1].long()).tolist() == [round(per_step / 2)] * item.views[0].grid[0]
        assert torch.equal(kept.coords, whole.kept.coords[kept.source])
        assert float(kept.mass.sum()) == len(whole.kept)
        assert kept.assignment is not None
        assert torch.equal(torch.bincount(kept.assignment).to(torch.float32), kept.mass)


@pytest.mark.parametrize(("model", "first", "further"), [("nano", "tome", "dtd"), ("nano-clip", "evit", "uniform")])
def test_what_is_derived_is_what_follows_at_once(
    media: Path, tmp_path: Path, model: str, first: str, further: str
) -> None:
    run(media, tmp_path / "first", model=model, method=first, keep=0.5)
    keep = 0.2 if further == "uniform" else None
    options = {f"{first}.keep": "0.5"}
    run(media, tmp_path / "at-once", model=model, method=f"{first},{further}", options=options, keep=keep)
    values = {"method": further, "keep": keep, "tokens_dtype": "float32"}
    derive(DeriveRecipe(cache=str(tmp_path / "first"), output=str(tmp_path / "later"), **values))
    assert_same_caches(tmp_path / "later", tmp_path / "at-once")


def test_of_frames_that_were_chosen_before(media: Path, tmp_path: Path) -> None:
    chosen = {"keyframes.features": "pixels", "keyframes.frames": "2"}
    items = run(media, tmp_path / "cache", model="nano-clip", method="keyframes,tome", keep=0.5, options=chosen)
    for item in items:
        assert len(set(item.kept.coords[:, 1].tolist())) == 2
        assert len(item.kept) == 2 * item.views[0].grid[1] * item.views[0].grid[2] // 2
        assert item.kept.assignment is not None and len(item.kept.assignment) == item.source_tokens
        assert int((item.kept.assignment >= 0).sum()) == 2 * item.views[0].grid[1] * item.views[0].grid[2]


@pytest.mark.parametrize("model", MODELS)
def test_a_ceiling_for_each_item(media: Path, tmp_path: Path, model: str) -> None:
    (whole,) = run(media, tmp_path / "full", model=model, method="none")
    steps, height, width = whole.views[0].grid
    ceiling = steps * height * width // 2 + steps - 1
    (item,) = run(media, tmp_path / "cache", model=model, method="tome", max_tokens=ceiling)
    assert torch.bincount(item.kept.coords[:, 1].long()).tolist() == [ceiling // steps] * steps
    chosen = {"keyframes.features": "pixels", "keyframes.frames": "2"}
    (item,) = run(media, tmp_path / "two", model=model, method="keyframes,tome", max_tokens=ceiling, options=chosen)
    assert len(item.kept) == 2 * min(height * width, ceiling // 2)


def test_a_cache_tells_what_later_stages_should_spare(media: Path, tmp_path: Path) -> None:
    options = {"mustdrop.window": "2", "mustdrop.threshold": "0.5"}
    (item,) = run(media, tmp_path / "cache", model="nano-clip", method="mustdrop", options=options)
    spared = item.kept.stats["protected"]
    assert spared.dtype == np.bool_ and len(spared) == len(item.kept)
    steps = item.kept.coords[:, 1].numpy()
    for step in np.unique(steps):
        assert spared[steps == step].sum() == math.ceil(0.08 * (steps == step).sum())
    # Later methods carry the marks of what they keep along, in the same run and on the cache.
    both = {**options, "uniform.keep": "0.2"}
    (at_once,) = run(media, tmp_path / "both", model="nano-clip", method="mustdrop,uniform", options=both)
    places = [tuple(place) for place in item.kept.coords.tolist()]
    expected = [bool(spared[places.index(tuple(place))]) for place in at_once.kept.coords.tolist()]
    assert any(expected) and at_once.kept.stats["protected"].tolist() == expected
    derive(DeriveRecipe(cache=str(tmp_path / "cache"), output=str(tmp_path / "later"), method="uniform", keep=0.2))
    (later,) = (open_cache(tmp_path / "later")[name] for name in open_cache(tmp_path / "later").ids())
    assert later.kept.stats["protected"].tolist() == expected


def test_an_item_with_more_frames_than_its_ceiling(media: Path, tmp_path: Path) -> None:
    sampling = SamplingRecipe(fps=None, num_frames=4)
    options = {"inputs": [str(media)], "output": str(tmp_path / "cache"), "sampling": sampling, "workers": 1}
    summary = compress(CompressRecipe(**options, model="nano-clip", method="flowcut", max_tokens=3))
    assert summary.failed == 1
    (row,) = open_cache(tmp_path / "cache").errors().to_pylist()
    assert row["stage"] == "method" and "a token of each of 4 temporal steps, over max_tokens=3" in row["message"]


@pytest.mark.parametrize("model", MODELS)
def test_the_language_model_answers_from_it(media: Path, tmp_path: Path, model: str) -> None:
    """All tokens through the loop over the blocks answer like all tokens of the plain tower."""
    language = load_language_model(model)
    answers = []
    for name, keep in (("none", None), ("tome", 1.0), ("tome", 0.5)):
        items = run(media, tmp_path / f"{name}{keep}", model=model, method=name, keep=keep)
        requests = [Request([item], "What color is the square?") for item in items]
        answers.append([answer.text for answer in language.generate(requests, max_new_tokens=4)])
    assert answers[0] == answers[1]
    assert all(answers[2])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "tome", "keep": 0.01}, MethodError, "leaves 0.0625 of them, not 0.01; ask for keep=0.0625 or more"),
        ({"method": "tome", "max_tokens": 3}, MethodError, "leaves at least 4 of the 64 tokens .* over max_tokens=3;"),
        ({"method": "tome", "reuse_unchanged": 0.0}, MethodError, "leave out --reuse-unchanged"),
        ({"method": "tome,aot"}, ModelError, "is not there after a method inside the tower"),
        ({"method": "uniform,tome", "options": {"uniform.keep": "0.5"}}, MethodError, "must stand before 'uniform'"),
        ({"method": "tome", "also": ["uniform@0.5={also}"]}, UsageError, "cannot come from the same encoding"),
    ],
)
def test_what_is_refused_before_any_file_is_opened(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    picture = tmp_path / "nothing.png"
    picture.write_bytes(b"not a picture")
    options = {**options, "also": [text.format(also=tmp_path / "also") for text in options.get("also", [])]}
    recipe = CompressRecipe(
        inputs=[str(picture)], output=str(tmp_path / "cache"), model="nano-clip", workers=1, **options
    )
    with pytest.raises(error, match=message):
        compress(recipe)
    assert not (tmp_path / "cache").exists()
