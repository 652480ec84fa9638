"""`tokcli tune` and `--method auto` with the bundled model, on a few rendered clips."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tokcli.cache import open_cache
from tokcli.errors import CacheConflictError
from tokcli.evaluate.tune import tune
from tokcli.evaluate.tune_report import Tuning, _from_anywhere
from tokcli.recipe import CompressRecipe, TuneRecipe, load_recipe

KEEP = [0.5, 0.25, 0.1]


def make_recipe(clips: Path, folder: Path, **changes: Any) -> TuneRecipe:
    values: dict[str, Any] = {
        "inputs": [str(clips)],
        "qa": str(clips / "qa.jsonl"),
        "output": str(folder / "tune"),
        "cache": str(folder / "cache"),
        "methods": ["dtd", "uniform"],
        "keep": KEEP,
        "threshold": [0.3, 0.7],
        "retain": 0.8,
        # No limit: on a busy machine the clock would decide what is tried.
        "answer_time": 0,
        "workers": 1,
    }
    return TuneRecipe(**{**values, **changes})


@pytest.fixture(scope="module")
def tuned(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TuneRecipe, Tuning]:
    recipe = make_recipe(clips, tmp_path_factory.mktemp("tuned"))
    return recipe, tune(recipe)


def run_main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str, str]:
    from tokcli.cli.app import main

    monkeypatch.setattr(sys, "argv", ["tokcli", *map(str, words)])
    capsys.readouterr()
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_document_says_what_was_found_and_how_sure_it_is(tuned: tuple[TuneRecipe, Tuning]) -> None:
    recipe, tuning = tuned
    document = tuning.document
    assert json.loads((Path(recipe.output) / "tune.json").read_text()) == document
    names = [row["setting"] for row in document["table"]]
    assert names == [
        *(f"dtd@{share:g}" for share in KEEP),
        "dtd:threshold=0.3",
        "dtd:threshold=0.7",
        *(f"uniform@{share:g}" for share in KEEP),
    ]
    assert document["sample"] == document["inputs"] == 6
    assert document["search_items"] + document["test_items"] == 6
    chosen = next(row for row in document["table"] if row["verdict"].startswith("chosen"))
    assert document["chosen"].items() <= chosen.items()
    assert document["kept_share"] == chosen["kept_share"] < 1
    assert document["ci"][0] <= document["retained"] <= document["ci"][1]
    assert document["retained"] >= 0.8
    # Four items are too few: it says so, and what would help.
    assert not document["certain"]
    assert "items" in document["advice"] or "--sample" in document["advice"]
    assert document["ratio"] == pytest.approx(document["answer_seconds"] / document["encode_seconds"], abs=0.01)


def test_going_on_measures_nothing_again_and_chooses_the_same(tuned: tuple[TuneRecipe, Tuning]) -> None:
    recipe, tuning = tuned
    journal = Path(recipe.output) / "tried.jsonl"
    before = journal.read_bytes()
    assert tune(recipe).document == tuning.document
    assert journal.read_bytes() == before


def test_a_run_that_was_stopped_goes_on(tuned: tuple[TuneRecipe, Tuning], clips: Path, tmp_path: Path) -> None:
    recipe, tuning = tuned
    again = make_recipe(clips, tmp_path)
    Path(again.output).mkdir()
    lines = (Path(recipe.output) / "tried.jsonl").read_bytes().splitlines(keepends=True)
    half = lines[: len(lines) // 2]
    (Path(again.output) / "tried.jsonl").write_bytes(b"".join(half) + b'{"torn')
    document = tune(again).document
    assert document["chosen"] == tuning.document["chosen"]
    assert document["table"] == tuning.document["table"]
    assert (Path(again.output) / "tried.jsonl").read_bytes().startswith(b"".join(half))


def test_the_recipe_and_the_command_make_the_cache_that_was_chosen(tuned: tuple[TuneRecipe, Tuning]) -> None:
    from typer.testing import CliRunner

    from tokcli.cli.app import app

    recipe, tuning = tuned
    step = load_recipe(Path(tuning.document["recipe"])).compress
    assert step is not None
    assert step.inputs == recipe.inputs
    words = shlex.split(tuning.document["command"])
    assert words[0] == "tokcli"
    assert CliRunner().invoke(app, ["run", tuning.document["recipe"], "-q"]).exit_code == 0
    first = open_cache(recipe.cache).manifest.configuration
    [method] = first["method"]["methods"]
    assert method["name"] == tuning.document["chosen"]["method"]
    for budget in ("keep", "threshold"):
        assert method["options"].get(budget) == tuning.document["chosen"].get(budget)
    # The command finds everything done: it is the same configuration.
    result = CliRunner().invoke(app, [*words[1:], "--json", "-q"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["skipped"] == 6


def test_without_right_answers_it_is_agreement(clips: Path, tmp_path: Path) -> None:
    recipe = make_recipe(clips, tmp_path, qa=None, prompt=["What color is the circle?"], methods=["uniform"])
    document = tune(recipe).document
    assert document["measure"] == "agreement with all tokens"
    tested = next(row for row in document["table"] if row["tested"])
    # One question about each item, and all of them count.
    assert tested["questions"] == tested["items"] == document["test_items"]


def test_another_model_or_file_of_questions_is_refused(tuned: tuple[TuneRecipe, Tuning]) -> None:
    recipe, _ = tuned
    with pytest.raises(CacheConflictError, match="max_new_tokens: 16 before, 8 now"):
        tune(recipe.model_copy(update={"max_new_tokens": 8}))


def test_auto_compresses_with_the_choice_and_takes_it_again(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    words = ("compress", clips, "-o", cache, "--method", "auto", "--retain", "0.8", "--qa", clips / "qa.jsonl")
    code, out, err = run_main(monkeypatch, capsys, *words, "--json")
    assert code == 0, err
    assert json.loads(out)["done"] == 6
    chosen = json.loads((tmp_path / "cache.tune" / "tune.json").read_text())["chosen"]
    named = CompressRecipe(inputs=[str(clips)], output=str(tmp_path / "named"), **chosen)
    from tokcli.pipeline.compress import compress

    compress(named)
    assert open_cache(cache).manifest.digest == open_cache(tmp_path / "named").manifest.digest

    def never(*_: object) -> None:
        raise AssertionError("it was tuned again")

    monkeypatch.setattr("tokcli.cli.tune.run_tune", never)
    path = tmp_path / "cache.tune" / "tune.json"
    document = json.loads(path.read_text()) | {"certain": False, "out_of_time": True}
    path.write_text(json.dumps(document))
    code, out, err = run_main(monkeypatch, capsys, *words, "--json")
    assert code == 0, err
    assert json.loads(out)["skipped"] == 6
    assert "was made with" in err
    assert "run `tokcli tune` with --answer-time 0 and give its choice with --method" in " ".join(err.split())
    assert "without effect" not in err
    code, _, err = run_main(monkeypatch, capsys, *words, "--retain", "0.7", "--qa", "other.jsonl")
    assert code == 0, err
    assert "is there already: --retain 0.7, --qa other.jsonl; --overwrite tunes again" in " ".join(err.split())
    path.unlink()
    code, _, err = run_main(monkeypatch, capsys, *words)
    assert code == 0, err
    assert "was made with" in err and "tokcli tune" not in err


def test_overwrite_and_retry_errors_reach_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokcli.cli.auto import with_method

    asked: list[TuneRecipe] = []

    def stop(recipe: TuneRecipe, quiet: bool) -> None:
        asked.append(recipe)
        raise InterruptedError

    monkeypatch.setattr("tokcli.cli.tune.run_tune", stop)
    flags = {"overwrite": True, "retry_errors": True}
    with pytest.raises(InterruptedError):
        with_method(CompressRecipe(inputs=["a"], output=str(tmp_path), method="auto", **flags), quiet=True)
    assert asked[0].overwrite and asked[0].retry_errors


def test_advice_about_auto_names_no_flag_that_compress_lacks() -> None:
    from tokcli.cli.auto import _doubt

    document = {"ci": [0.9, 1.0], "out_of_time": False, "advice": "use --sample 512 to be sure, it was 128"}
    assert _doubt(document) == (
        "the choice is uncertain: run `tokcli tune` yourself and give its choice with --method; "
        "use --sample 512 to be sure, it was 128"
    )
    late = document | {"ci": None, "out_of_time": True}
    assert _doubt(late) == (
        "nothing was found to keep enough, for time ran out: "
        "run `tokcli tune` with --answer-time 0 and give its choice with --method"
    )


def test_paths_of_the_recipe_mean_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokcli.media.scan import scan_inputs

    here = tmp_path / "set [1]"
    here.mkdir()
    for name in ("a.mp4", "b[2].mp4"):
        (here / name).touch()
    monkeypatch.chdir(here)
    recipe = CompressRecipe(inputs=[".", "b[2].mp4", "*.mp4", "/media/*.mp4"], output="cache")
    moved = _from_anywhere(recipe)
    assert moved.inputs[:2] == [str(here), str(here / "b[2].mp4")]
    found = [item.path for item in scan_inputs([moved.inputs[2]]).items]
    assert found == [str(here / "a.mp4"), str(here / "b[2].mp4")]
    assert moved.inputs[3] == "/media/*.mp4"
    assert (moved.output, moved.model) == (str(here / "cache"), "nano")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--retain", "0"), "--retain must be above 0"),
        (("--retain", "1.5"), "--retain must be below 1"),
        (("--sample", "1"), "--sample must be at least 2"),
        (("--methods", "nonsense"), "unknown method 'nonsense'"),
        (("--methods", "downsample"), "changes the frames before the encoder"),
        (("--keep", "half"), "write numbers with commas between"),
        (("--keep", "2"), "--keep must be at most 1"),
        (("--qa", "other.jsonl"), "none of the 1 questions is about one of the 6 items"),
        (("--qa", "mixed.jsonl"), "1 of 2 questions have no 'answer'"),
        (("--limit", "1"), "1 item"),
    ],
)
def test_what_cannot_work_is_one_line(
    words: tuple[str, str],
    message: str,
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.jsonl").write_text('{"video": "elsewhere.mp4", "question": "What?", "answer": "red"}\n')
    Path("mixed.jsonl").write_text(
        '{"video": "a.mp4", "question": "What?", "answer": "red"}\n{"video": "a.mp4", "question": "Who?"}\n'
    )
    code, out, err = run_main(monkeypatch, capsys, "tune", clips, *words)
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert not Path("tune").exists()


def test_no_inputs_and_budgets_beside_auto_are_refused(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run_main(monkeypatch, capsys, "tune", tmp_path / "nothing")
    assert code == 2 and "nothing" in err
    code, _, err = run_main(monkeypatch, capsys, "compress", clips, "-o", "c", "--method", "auto", "--keep", "0.5")
    assert code == 2 and "method auto chooses method and budget" in err
    code, _, err = run_main(monkeypatch, capsys, "compress", clips, "-o", "c", "--retain", "0.9")
    assert code == 2 and "retain and qa are for method auto" in err
