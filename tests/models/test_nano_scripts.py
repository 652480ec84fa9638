"""The scripts that train and evaluate the bundled models: what flags do, what is printed, which stages are kept."""

from __future__ import annotations

import inspect
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from tokcli.models.nano.scripts import run_stage

MODELS = ("nano", "nano_clip")


def run(monkeypatch: pytest.MonkeyPatch, script: Any, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    script.main()


@pytest.mark.parametrize("name", MODELS)
def test_a_checkpoint_is_evaluated_as_after_its_training(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training itself is tested elsewhere; here it leaves the bundled checkpoint."""
    training, evaluation = (import_module(f"tokcli.models.{name}.{script}") for script in ("train", "evaluate"))
    signature, calls = inspect.signature(training.train), list[dict[str, Any]]()

    def train(*arguments: Any, **named: Any) -> None:
        calls.append(signature.bind(*arguments, **named).arguments)
        shutil.copytree(evaluation.CHECKPOINT, calls[0]["out"])
        named["log"]("trained")

    monkeypatch.setattr(training, "train", train)
    out, work = tmp_path / "out", tmp_path / "deep" / "work"
    run(monkeypatch, training, "--out", str(out), "--work", str(work), "--device", "cpu", "--scenes", "1")
    first, *after_training = capsys.readouterr().out.splitlines()
    assert first.split() == ["0", "s", "trained"]
    assert work.is_dir()
    assert (calls[0]["out"], calls[0]["work"], calls[0]["device"]) == (out, work, "cpu")

    run(monkeypatch, evaluation, str(out), "--scenes", "1")
    table = capsys.readouterr().out.splitlines()
    assert table == after_training
    assert [line for line in table if line.startswith("| all tokens")]
    assert [line for line in table if line.startswith("| static |")]


def test_nano_may_start_from_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training, starts = import_module("tokcli.models.nano.train"), list[Path | None]()

    def train(out: Path, *, start: Path | None, **named: Any) -> None:
        starts.append(start)
        shutil.copytree(import_module("tokcli.models.nano.evaluate").CHECKPOINT, out)

    monkeypatch.setattr(training, "train", train)
    run(monkeypatch, training, "--out", str(tmp_path / "out"), "--start", str(tmp_path / "known"), "--scenes", "1")
    assert starts == [tmp_path / "known"]


def test_threads_are_those_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation, asked = import_module("tokcli.models.nano_clip.evaluate"), list[int]()
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    run(monkeypatch, evaluation, "--threads", "3", "--scenes", "1")
    run(monkeypatch, evaluation, "--scenes", "1")
    assert asked == [3]


def test_a_stage_that_is_kept_is_not_run_again(tmp_path: Path) -> None:
    lines: list[str] = []

    def fail() -> None:
        raise AssertionError("run again")

    kept = {"work": tmp_path, "device": "cpu", "log": lines.append}
    first = run_stage("tower", lambda: {"weight": torch.arange(3)}, **kept)
    second = run_stage("tower", fail, **kept)
    assert torch.equal(first["weight"], second["weight"])
    assert lines == ["tower", "tower taken from tower.pt"]
    with pytest.raises(AssertionError, match="run again"):
        run_stage("bank", fail, **kept)


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs: list[int] = []
    for number in range(2):
        run_stage("tower", lambda number=number: runs.append(number), work=None, device="cpu", log=lambda line: None)
    assert runs == [0, 1]
    assert list(tmp_path.iterdir()) == []
