"""A whole evaluation with the bundled model: rows, going on, the same table again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tokcli.cache import open_cache
from tokcli.errors import CacheConflictError, MethodError, UsageError
from tokcli.evaluate.encoding import Encoder
from tokcli.evaluate.evaluate import evaluate
from tokcli.evaluate.observer import SilentEval
from tokcli.evaluate.settings import method_settings
from tokcli.models import LanguageModel
from tokcli.models.sizing import Sizer
from tokcli.recipe import EvalRecipe

Row = dict[str, Any]
BASELINES = {"random", "uniform", "pool2d", "downsample"}


def rows_of(recipe: EvalRecipe) -> list[Row]:
    rows: list[Row] = json.loads((Path(recipe.output) / "results.json").read_text())["results"]
    return rows


def timeless(rows: list[Row]) -> list[Row]:
    return [{key: value for key, value in row.items() if not key.endswith("_seconds")} for row in rows]


def copied(evaluated: EvalRecipe, folder: Path, *, outcomes: bool = True) -> EvalRecipe:
    """The same evaluation in another folder; without ``outcomes`` only its caches."""
    shutil.copytree(evaluated.output, folder)
    if not outcomes:
        (folder / "outcomes.jsonl").write_bytes(b"")
        (folder / "results.json").unlink()
    return evaluated.model_copy(update={"output": str(folder)})


def find(rows: list[Row], **wanted: Any) -> Row:
    (row,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return row


def test_rows_of_all_settings_and_kinds(evaluated: EvalRecipe) -> None:
    rows = rows_of(evaluated)
    whole = [row for row in rows if row["kind"] is None]
    kinds = {row["kind"] for row in rows} - {None}
    assert "choice" in kinds
    assert len(rows) == len(whole) * (len(kinds) + 1)
    own = [(row["method"], row["keep"]) for row in whole if row["matches"] is None]
    assert set(own) == {
        ("full", 1.0),
        ("blind", None),
        ("guess", None),
        ("dtd:threshold=0.5;criterion=pixel", None),
        ("evs:max_tokens=1", None),
        *((name, keep) for name in {"dtd", *BASELINES} for keep in (0.5, 0.02)),
    }
    for row in whole:
        of_kinds = [find(rows, **{key: row[key] for key in ("method", "keep", "matches")}, kind=kind) for kind in kinds]
        assert sum(kind["n"] for kind in of_kinds) == row["n"] == 9
        if row["accuracy"] is not None:
            total = sum(kind["accuracy"] * kind["n"] for kind in of_kinds)
            assert total / row["n"] == pytest.approx(row["accuracy"], abs=1e-5)
            assert row["ci"][0] <= row["accuracy"] <= row["ci"][1]
    full = find(rows, method="full", kind=None)
    assert (full["diff"], full["diff_ci"], full["retained"]) == (0, [0, 0], 1)
    assert full["kept_tokens"] == full["source_tokens"]
    assert find(rows, method="full", kind="choice")["chance"] == pytest.approx(1 / 3, abs=1e-6)


def test_totals_are_those_of_the_caches(evaluated: EvalRecipe) -> None:
    rows, folder = rows_of(evaluated), Path(evaluated.output)
    # The cache also holds the signal that dtd's pixel criterion needs; what a user would store has none.
    assert "signal.pixel_change" in open_cache(folder / "full")[0].kept.stats
    for name, row in (
        ("full", find(rows, method="full", kind=None)),
        ("downsample-0.5", find(rows, method="downsample", keep=0.5, kind=None, matches=None)),
    ):
        stats = open_cache(folder / name).stats()
        assert (row["kept_tokens"], row["source_tokens"]) == (stats["kept_tokens"], stats["source_tokens"])
        assert row["source_bytes"] == stats["source_bytes"]
        assert row["cache_bytes"] == pytest.approx(stats["cache_bytes"], rel=0.02)
        assert row["encode_seconds"] > 0


def test_baselines_at_the_real_count(evaluated: EvalRecipe) -> None:
    """dtd keeps the first step whole, so it cannot keep a fiftieth: the baselines are measured at what it kept."""
    rows = rows_of(evaluated)
    dtd = find(rows, method="dtd", keep=0.02, kind=None)
    assert dtd["kept_share"] > 0.022
    matched = {row["method"]: row for row in rows if row["matches"] == "dtd@0.02" and row["kind"] is None}
    assert matched.keys() == BASELINES
    assert matched["uniform"]["kept_tokens"] == matched["random"]["kept_tokens"] == dtd["kept_tokens"]
    assert matched["pool2d"]["kept_tokens"] <= dtd["kept_tokens"]
    assert matched["downsample"]["keep"] == pytest.approx(dtd["kept_share"], rel=0.01)
    assert not [row for row in rows if row["matches"] == "dtd@0.5"]
    assert [row for row in rows if row["matches"] == "dtd:threshold=0.5;criterion=pixel"]


def test_a_budget_that_cannot_be_met_is_a_row_with_its_reason(evaluated: EvalRecipe) -> None:
    row = find(rows_of(evaluated), method="evs:max_tokens=1", kind=None)
    assert row["accuracy"] is row["ci"] is row["kept_tokens"] is row["cache_bytes"] is None
    assert "keeps at least the first step whole" in row["reason"]


def test_guessing_by_hand(evaluated: EvalRecipe) -> None:
    assert evaluated.qa is not None
    asked = [
        (
            row.get("id") or row["video"],
            row["question"],
            row.get("kind") or row.get("category"),
            row["options"][0] if "options" in row else row["answer"],
        )
        for row in map(json.loads, Path(evaluated.qa).read_text().splitlines())
        if "elsewhere" not in row.get("video", "")
    ]
    right = 0
    for item, text, kind, answer in asked:
        same = [other[3] for other in asked if other[0] != item and other[1] == text]
        same = same or [other[3] for other in asked if other[0] != item and other[2] == kind]
        right += bool(same) and max(dict.fromkeys(same), key=same.count) == answer
    assert find(rows_of(evaluated), method="guess", kind=None)["accuracy"] == pytest.approx(
        right / len(asked), abs=1e-6
    )


def test_the_table_file_holds_the_same(evaluated: EvalRecipe) -> None:
    assert pq.read_table(Path(evaluated.output) / "results.parquet").to_pylist() == [
        {name: row.get(name) for name in rows_of(evaluated)[0]} for row in rows_of(evaluated)
    ]


def test_a_finished_evaluation_loads_no_model_and_gives_the_same(
    evaluated: EvalRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = copied(evaluated, tmp_path / "again")
    monkeypatch.setattr("tokcli.evaluate.evaluate.load_language_model", None)
    monkeypatch.setattr("tokcli.evaluate.encoding.DecoderPool", None)
    assert evaluate(recipe).rows == rows_of(evaluated)
    # Fewer settings take what is there; the rows that stay do not change.
    fewer = evaluate(recipe.model_copy(update={"methods": ["dtd"], "keep": [0.5]})).rows
    of_dtd = {"method": "dtd", "keep": 0.5, "kind": None}
    assert find(fewer, **of_dtd) == find(rows_of(evaluated), **of_dtd)


def test_goes_on_after_a_kill_and_asks_only_what_is_missing(
    evaluated: EvalRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = copied(evaluated, tmp_path / "killed")
    journal = Path(recipe.output) / "outcomes.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    (Path(recipe.output) / "results.json").unlink()
    journal.write_bytes(b"".join(lines[:-5]) + lines[-5][:50])
    asked = []
    ask = LanguageModel.ask
    monkeypatch.setattr(LanguageModel, "ask", lambda self, *args, **more: asked.append(1) or ask(self, *args, **more))
    assert timeless(evaluate(recipe).rows) == timeless(rows_of(evaluated))
    assert 0 < len(asked) <= 5
    assert len(journal.read_bytes().splitlines()) == len(lines)


def test_the_same_seed_gives_the_same_table_in_another_folder(evaluated: EvalRecipe, tmp_path: Path) -> None:
    fewer = {"methods": ["dtd"], "keep": [0.02]}
    fresh = copied(evaluated, tmp_path / "fresh", outcomes=False).model_copy(update=fewer)
    before = copied(evaluated, tmp_path / "before").model_copy(update=fewer)
    assert timeless(evaluate(fresh).rows) == timeless(evaluate(before).rows)


def test_another_configuration_is_refused_and_overwritten_on_request(evaluated: EvalRecipe, tmp_path: Path) -> None:
    recipe = copied(evaluated, tmp_path / "other")
    with pytest.raises(CacheConflictError, match="max_new_tokens: 16 before, 3 now"):
        evaluate(recipe.model_copy(update={"max_new_tokens": 3}))
    other = tmp_path / "occupied"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        evaluate(recipe.model_copy(update={"output": str(other)}))
    assert (other / "notes.txt").read_text() == "mine"


def test_against_full_needs_no_answers(evaluated: EvalRecipe, tmp_path: Path) -> None:
    recipe = evaluated.model_copy(
        update={
            "qa": None,
            "prompt": ["How many objects are there?"],
            "against": "full",
            "methods": ["evs"],
            "keep": [1.0, 0.5],
            "output": str(tmp_path / "agreement"),
        }
    )
    shutil.copytree(Path(evaluated.output) / "full", tmp_path / "agreement" / "full")
    (tmp_path / "agreement" / "outcomes.jsonl").touch()
    rows = evaluate(recipe).rows
    assert {row["kind"] for row in rows} == {None}
    for name in ("full", "evs"):
        row = find(rows, method=name, keep=1.0, kind=None)
        assert (row["measure"], row["accuracy"], row["kl"], row["kl_ci"]) == ("agreement", 1, 0, [0, 0])
    assert find(rows, method="blind")["kl"] > find(rows, method="evs", keep=0.5)["kl"] > 0
    assert not [row for row in rows if row["method"] == "guess"]


def test_a_file_that_cannot_be_decoded_is_left_out_of_every_row(evaluated: EvalRecipe, tmp_path: Path) -> None:
    assert evaluated.qa is not None
    recipe = copied(evaluated, tmp_path / "failing", outcomes=False)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"nothing")
    qa = tmp_path / "qa.jsonl"
    qa.write_text(Path(evaluated.qa).read_text() + '{"video": "bad.mp4", "question": "What?", "answer": "x"}\n')
    update = {"inputs": [*recipe.inputs, str(bad)], "qa": str(qa), "methods": ["dtd"], "keep": [0.5]}
    found = evaluate(recipe.model_copy(update=update))
    assert found.failed == 1
    assert {row["n"] for row in found.rows if row["kind"] is None} == {9}


def test_what_the_tower_cannot_carry_is_refused_before_any_work(eval_recipe: EvalRecipe, tmp_path: Path) -> None:
    """The message names the method, the budget, and the least that will do."""
    out = tmp_path / "out"
    recipe = eval_recipe.model_copy(
        update={"model": "nano-clip", "methods": ["tome"], "keep": [0.5, 0.05], "output": str(out)}
    )
    with pytest.raises(MethodError, match=r"'tome' .* leaves 0\.0625 of them, not 0\.05; ask for keep=0\.0625 or more"):
        evaluate(recipe)
    assert not out.exists()


def test_baselines_that_a_tower_cannot_carry_are_left_out(
    eval_recipe: EvalRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sizer, "scalable", False)
    recipe = eval_recipe.model_copy(update={"output": str(tmp_path / "out"), "keep": [1.0, 0.5]})
    with Encoder(recipe, SilentEval()) as encoder:
        settings = method_settings(["dtd"], [1.0, 0.5], {}, 0)
        carried = encoder.carried(settings, ["dtd"])
        assert [setting for setting in settings if setting not in carried] == [
            setting for setting in settings if setting.name == "downsample@0.5"
        ]
        with pytest.raises(MethodError, match="downsample makes frames smaller, nano takes them in one size only"):
            encoder.carried(settings, ["downsample"])
