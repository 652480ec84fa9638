"""`tokcli eval` as people and scripts call it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tokcli = Callable[..., Any]


@pytest.fixture(scope="module")
def few_questions(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two questions about each of two clips, with a chance."""
    rows = [json.loads(line) for line in (clips / "qa.jsonl").read_text().splitlines()]
    names = sorted({row["id"] for row in rows})[:2]
    chosen = [row for name in names for row in [row for row in rows if row["id"] == name][:2]]
    path = tmp_path_factory.mktemp("questions") / "qa.jsonl"
    path.write_text("".join(json.dumps({**row, "chance": 0.25}) + "\n" for row in chosen))
    return path


@pytest.fixture(scope="module")
def small_cache(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokcli.pipeline.compress import compress
    from tokcli.recipe import CompressRecipe

    cache = tmp_path_factory.mktemp("caches") / "half"
    compress(CompressRecipe(inputs=[str(clips)], output=str(cache), method="uniform", keep=0.5, workers=1))
    return cache


def test_caches_are_compared_with_the_one_that_has_all_tokens(
    tokcli: Tokcli, clip_cache: Path, small_cache: Path, few_questions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "eval"
    arguments = ("eval", small_cache, clip_cache, "--qa", few_questions, "-o", out, "--bootstrap", 20)
    result = tokcli(*arguments, "--json")
    assert result.code == 0, result.stderr
    assert result.document == json.loads((out / "results.json").read_text())
    whole = [row for row in result.document["results"] if row["kind"] is None]
    assert [(row["method"], row["keep"]) for row in whole] == [
        ("full", 1.0),
        ("uniform", 0.5),
        ("blind", None),
        ("guess", None),
    ]
    assert {row["chance"] for row in whole} == {0.25}
    assert whole[1]["kept_tokens"] * 2 == pytest.approx(whole[0]["kept_tokens"], abs=2)
    assert {path.suffix for path in out.iterdir()} >= {".png", ".svg", ".parquet"}
    drawn = tokcli(*arguments, "--no-plots", "-q")
    assert (drawn.code, drawn.stdout) == (0, "")
    again = tokcli(*arguments, "--no-plots")
    assert "4 items have no question about them and are left out" in again.stderr
    page = again.stdout
    assert "4 questions about 2 items" in page
    for name in ("full", "uniform@0.5", "blind", "guess", "chance"):
        assert any(line.strip("* ").startswith(name) for line in page.splitlines()), page


def test_without_all_tokens_it_says_what_is_missing(
    tokcli: Tokcli, small_cache: Path, few_questions: Path, tmp_path: Path
) -> None:
    arguments = ("eval", small_cache, "--qa", few_questions, "-o", tmp_path / "eval", "--no-plots")
    result = tokcli(*arguments, "--json")
    assert result.code == 0
    assert "intervals are not paired" in result.stderr
    row = result.document["results"][0]
    assert row["accuracy"] is not None
    assert row["diff"] is row["diff_ci"] is row["retained"] is None
    assert tokcli(*arguments, "--against", "full").code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "dttd"], ["dttd", "did you mean 'dtd'"]),
        (["--keep", "0"], ["--keep", "above 0"]),
        (["--keep", "2"], ["--keep", "at most 1"]),
        (["--keep", "half"], ["keep", "half"]),
        (["--keep", ""], ["--keep", "not empty"]),
        (["--methods", ","], ["--methods", "not empty"]),
        (["--qa", "gone.jsonl"], ["gone.jsonl", "No such file"]),
        (["--model", "nanoo"], ["nanoo", "nano"]),
        (["--positions", "new"], ["positions"]),
        (["--against", "half"], ["against", "full"]),
        (["--prompt", "What?"], ["against full"]),
        (["--set", "reference=kept"], ["METHOD.OPTION=VALUE"]),
    ],
)
def test_refused_before_any_work(
    tokcli: Tokcli, clips: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    result = tokcli("eval", clips, "--qa", clips / "qa.jsonl", "-o", tmp_path / "eval", *arguments)
    assert result.code == 2
    assert all(word in result.error for word in words), result.error
    assert not (tmp_path / "eval").exists()


def test_inputs_that_do_not_go_together(tokcli: Tokcli, clips: Path, clip_cache: Path, tmp_path: Path) -> None:
    options = ("--qa", clips / "qa.jsonl", "-o", tmp_path / "eval")
    assert "not both at once" in tokcli("eval", clips, clip_cache, *options).error
    assert "caches are evaluated as they are" in tokcli("eval", clip_cache, *options, "--keep", "0.5").error
    assert "no such file" in tokcli("eval", tmp_path / "gone", *options).error
    clip, alone = shutil.copy(next(clips.glob("*.mp4")), tmp_path / "alone.mp4"), tmp_path / "alone"
    assert tokcli("compress", clip, "-o", alone, "--num-workers", 1, "-q").code == 0
    assert "no item is in all of" in tokcli("eval", clip_cache, alone, *options).error
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "nobody.mp4", "question": "Who?", "answer": "me"}\n')
    assert "nobody.mp4" in tokcli("eval", clips, "--qa", other, "-o", tmp_path / "eval").error
    assert not (tmp_path / "eval").exists()


def test_a_stop_keeps_outcomes_and_goes_on(tokcli: Tokcli, clips: Path, clip_cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "eval"
    arguments = ["eval", clip_cache, "--qa", clips / "qa.jsonl", "-o", out, "--no-plots"]
    command = [sys.executable, "-m", "tokcli.cli.app", *map(str, arguments)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    journal = out / "outcomes.jsonl"
    while process.poll() is None and time.monotonic() < deadline:
        if journal.exists() and journal.read_bytes().count(b"\n") >= 2:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, messages = process.communicate(timeout=120)
    if process.returncode != 0:  # it may have finished first
        assert process.returncode == 130
        assert "goes on from here" in messages
        assert not (out / "results.json").exists()
    before = journal.read_bytes()
    assert tokcli(*arguments).code == 0
    assert journal.read_bytes().startswith(before)
    assert (out / "results.json").exists()


def test_as_a_step_of_a_recipe(tokcli: Tokcli, clip_cache: Path, few_questions: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"eval: {{inputs: ['{clip_cache}'], qa: '{few_questions}', output: '{tmp_path / 'eval'}'}}\n")
    result = tokcli("run", recipe, "--json", "--set", "eval.plots=false")
    assert result.code == 0, result.stderr
    assert result.document["results"][0]["method"] == "full"


def test_a_cache_of_another_model_is_refused(
    tokcli: Tokcli, clip_cache: Path, few_questions: Path, other_checkpoint: Path, tmp_path: Path
) -> None:
    result = tokcli("eval", clip_cache, "--qa", few_questions, "--model", other_checkpoint, "-o", tmp_path / "eval")
    assert result.code == 4
    assert "nano" in result.error
    assert not (tmp_path / "eval").exists()
