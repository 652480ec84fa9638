"""The example of docs/examples: LoRA on cached tokens of rendered clips."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

import tokcli

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "lora.py"


@pytest.fixture(scope="module")
def few_tokens(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fifth of the clips' tokens, in float32."""
    cache = tmp_path_factory.mktemp("training") / "cache"
    assert tokcli.compress(clips, cache, method="evs", keep=0.2, dtype="float32", workers=1).failed == 0
    return cache


def test_lora_on_cached_tokens_learns(
    clips: Path, few_tokens: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script as a command, and the model that it leaves."""
    pytest.importorskip("peft")
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(few_tokens), str(clips / "qa.jsonl")])
    example = runpy.run_path(str(SCRIPT), run_name="__main__")
    said = capsys.readouterr().out
    assert said.startswith("mean loss by epoch: ") and len(said.split()) == 12
    questions, cache = example["read_questions"](str(clips / "qa.jsonl")), tokcli.open_cache(few_tokens)
    model, losses = example["model"], example["losses"]
    assert losses[-1] < 0.5 * losses[0]
    name = cache.ids()[0]
    question, answer = questions[Path(name).name][0]
    inputs = cache.to_inputs(name, question, model)
    answer_ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert 1 <= len(answer_ids) <= 12

    # All of that is in the adapters: without them the model is the one that was loaded.
    before = tokcli.load_language_model("nano", dtype="float32").model
    with torch.no_grad(), model.disable_adapter():
        loss = float(model(**cache.to_inputs(name, question, model, answer=answer)).loss)
        plain = float(before(**cache.to_inputs(name, question, before, answer=answer)).loss)
    assert loss == pytest.approx(plain, rel=1e-5)
    with torch.no_grad():
        assert float(model(**cache.to_inputs(name, question, model, answer=answer)).loss) < 0.5 * plain


def test_one_step_without_peft(few_tokens: Path) -> None:
    """Plain fine-tuning: a gradient for all of the language half, and the loss of that batch goes down."""
    cache = tokcli.open_cache(few_tokens)
    language = tokcli.load_language_model("nano", dtype="float32")
    rows = [cache.to_inputs(name, "What is shown?", language, answer="a cat") for name in cache.ids()[:2]]
    optimizer = torch.optim.SGD(language.model.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        loss = language.model(**tokcli.collate(rows)).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]
    assert all(p.grad is not None for p in language.model.model.language_model.parameters())
