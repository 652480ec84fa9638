"""Rendered files are real files, the same for the same seed, with questions that belong to them."""

import json
from pathlib import Path

import pytest

from tokcli.errors import UsageError
from tokcli.media import Limits, Sampling, open_media
from tokcli.pipeline.render import TIMELESS, render
from tokcli.recipe import RenderRecipe
from tokcli.synthetic import QUESTION_KINDS, make_scene, scene_kinds


def qa_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "qa.jsonl").read_text(encoding="utf-8").splitlines()]


def test_all_kinds_in_turn_as_files_that_open(tmp_path: Path) -> None:
    summary = render(RenderRecipe(output=str(tmp_path), kind="all", count=14, seed=3))
    files = sorted(path for path in tmp_path.iterdir() if path.suffix != ".jsonl")
    assert summary.files == len(files) == 14
    assert {path.name.split("-")[0] for path in files} == set(scene_kinds())
    assert {path.suffix for path in files} == {".mp4", ".webm", ".mkv", ".png"}
    rows = qa_of(tmp_path)
    assert {row["id"] for row in rows} == {path.name for path in files}
    assert {row["kind"] for row in rows} == set(QUESTION_KINDS)
    assert set(rows[0]) == {"id", "kind", "scene", "question", "answer", "chance"}
    seconds = 0.0
    for path in files:
        kind, _, number = path.stem.split("-")
        scene = make_scene(kind, 3 * 1_000_003 + int(number))
        with open_media(str(path), sampling=Sampling(fps=1.0), limits=Limits()) as reader:
            assert (reader.info.width, reader.info.height) == (scene.width, scene.height)
            assert reader.info.duration_seconds == pytest.approx(scene.duration_seconds, abs=0.05)
            seconds += reader.info.duration_seconds
    assert summary.media_seconds == pytest.approx(seconds, abs=0.2)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        render(RenderRecipe(output=str(tmp_path / name), kind="cut,needle,shake", count=3, seed=8))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_as_pictures_only_what_needs_no_time(tmp_path: Path) -> None:
    render(RenderRecipe(output=str(tmp_path), kind="all", count=8, format="png"))
    assert {row["scene"] for row in qa_of(tmp_path)} == set(TIMELESS)
    assert {row["kind"] for row in qa_of(tmp_path)} <= {"color", "shape", "count", "place", "compare", "read"}
    with pytest.raises(UsageError, match="'cut' need time to happen; as png there are static, short, still"):
        render(RenderRecipe(output=str(tmp_path / "b"), kind="static,cut", count=2, format="png"))


def test_an_unknown_kind_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown kind of scene 'cutt'.*did you mean 'cut'"):
        render(RenderRecipe(output=str(tmp_path / "a"), kind="static,cutt", count=2))
    assert not (tmp_path / "a").exists()


def test_the_same_rendering_may_be_repeated_and_no_other_put_beside_it(tmp_path: Path) -> None:
    recipe = RenderRecipe(output=str(tmp_path), kind="still,short", count=3, seed=1)
    render(recipe)
    before = qa_of(tmp_path)
    render(recipe)
    assert qa_of(tmp_path) == before
    with pytest.raises(UsageError, match=r"holds other files, 'short-1-00001.webm'; give an empty or a new folder"):
        render(recipe.model_copy(update={"seed": 2}))
    assert qa_of(tmp_path) == before
