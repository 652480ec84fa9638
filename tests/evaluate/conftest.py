"""One small evaluation, with everything that the tests look at, made once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokcli.recipe import EvalRecipe

METHODS = ["dtd", "dtd:threshold=0.5;criterion=pixel", "evs:max_tokens=1"]


@pytest.fixture(scope="session")
def few_clips(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rendered clips; qa.jsonl has two open questions and one with options about each, and one about no clip."""
    folder = tmp_path_factory.mktemp("few")
    rows = [json.loads(line) for line in (clips / "qa.jsonl").read_text().splitlines()]
    chosen = []
    for name in sorted({row["id"] for row in rows})[:3]:
        (folder / name).write_bytes((clips / name).read_bytes())
        of_clip = [row for row in rows if row["id"] == name]
        chosen += of_clip[:2]
        answer = of_clip[0]["answer"]
        options = [answer, *(option for option in ("red", "blue", "green", "circle") if option != answer)][:3]
        chosen.append(
            {"video": name, "question": of_clip[0]["question"], "options": options, "answer": "A", "category": "choice"}
        )
    chosen.append({"video": "elsewhere.mp4", "question": "What?", "answer": "x"})
    (folder / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return folder


@pytest.fixture(scope="session")
def eval_recipe(few_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> EvalRecipe:
    return EvalRecipe(
        inputs=[str(few_clips)],
        qa=str(few_clips / "qa.jsonl"),
        methods=METHODS,
        keep=[0.5, 0.02],
        output=str(tmp_path_factory.mktemp("evaluations") / "eval"),
        bootstrap=50,
        workers=1,
        plots=False,
    )


@pytest.fixture(scope="session")
def evaluated(eval_recipe: EvalRecipe) -> EvalRecipe:
    """The recipe, after it was run."""
    from tokcli.evaluate.evaluate import evaluate

    evaluate(eval_recipe)
    return eval_recipe
