"""Every command on a small dataset: what it prints for people and for machines."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tokcli import __version__
from tokcli.cache import open_cache

Tokcli = Callable[..., Any]


def test_compress_json_has_the_promised_keys(tokcli: Tokcli, clips: Path, tmp_path: Path) -> None:
    result = tokcli("compress", clips, "-o", tmp_path / "cache", "--method", "dtd", "--num-workers", 1, "--json")
    assert result.code == 0
    summary = result.document
    assert summary["items"] == summary["done"] == 6
    assert summary["failed"] == summary["skipped"] == 0
    assert 0 < summary["kept_tokens"] < summary["source_tokens"]
    assert summary["source_bytes"] == sum(p.stat().st_size for p in clips.iterdir() if p.suffix != ".jsonl")
    stored = sum(path.stat().st_size for path in (tmp_path / "cache" / "data").iterdir())
    assert summary["cache_bytes"] == pytest.approx(stored, rel=0.05)
    assert summary["media_seconds"] > 20
    assert summary["seconds"] > 0


def test_the_package_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["tokcli", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("tokcli", run_name="__main__")
    assert ended.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_failures_end_with_3_unless_allowed(tokcli: Tokcli, clips: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad [1] 'x'.mp4"
    bad.write_bytes(b"nothing")
    one = next(clips.glob("*.mp4"))
    arguments = ("compress", one, bad, "-o", tmp_path / "cache", "--num-workers", 1)
    first = tokcli(*arguments)
    assert first.code == 3
    assert "bad [1] 'x'.mp4" in first.stderr
    assert "1 failed" in first.stdout
    assert tokcli(*arguments, "--allow-errors").code == 0
    listed = tokcli("inspect", tmp_path / "cache", "--errors", "--json").document
    assert [Path(row["id"]).name for row in listed["errors"]] == [bad.name]
    assert listed["failed_by_stage"] == {"open": 1}
    shown = tokcli("inspect", tmp_path / "cache", "--errors").stdout
    assert " ".join(shown.split()).count(bad.name) == 1


def test_inspect_and_verify(tokcli: Tokcli, clip_cache: Path) -> None:
    document = tokcli("inspect", clip_cache, "--items", "--json").document
    assert document["complete"] is True
    assert document["stats"]["items"] == len(document["items"]) == 6
    assert document["stats"]["kept_tokens"] == sum(row["kept_tokens"] for row in document["items"])
    assert document["manifest"]["format"] == 1
    page = tokcli("inspect", clip_cache, "--items").stdout
    assert "nano" in page and "100.0% kept" in page
    sound = tokcli("verify", clip_cache, "--json")
    assert (sound.code, sound.document["sound"], sound.document["problems"]) == (0, True, [])
    cache = open_cache(clip_cache)
    assert (sound.document["items"], sound.document["failed"]) == (len(cache), cache.errors().num_rows)
    assert f": {len(cache)} items and " in tokcli("verify", clip_cache).stdout


def test_verify_finds_a_flipped_byte(tokcli: Tokcli, clips: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert tokcli("compress", clips, "-o", cache, "--method", "none", "--num-workers", 1, "-q").code == 0
    shard = max((cache / "data").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    result = tokcli("verify", cache, "--json")
    assert result.code == 5
    assert shard.name in result.document["problems"][0]["file"]
    assert tokcli("infer", cache, "--prompt", "What color is the circle?").code == 5


def test_infer_prints_and_writes(tokcli: Tokcli, clip_cache: Path, clips: Path, tmp_path: Path) -> None:
    result = tokcli("infer", clip_cache, "--prompt", "How many objects are there?", "--limit", 2, "--json")
    assert result.code == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert {"id", "prompt", "answer", "visual_tokens", "seconds"} <= row.keys()
        assert row["visual_tokens"] == row["source_tokens"] > 0
        assert row["answer"]
    for suffix in ("jsonl", "csv", "parquet"):
        path = tmp_path / f"answers.{suffix}"
        assert tokcli("infer", clip_cache, "--prompts", clips / "qa.jsonl", "-o", path, "--limit", 2).code == 0
        table = {
            "jsonl": lambda path: [json.loads(line) for line in path.read_text().splitlines()],
            "csv": lambda path: list(csv.DictReader(path.open(newline=""))),
            "parquet": lambda path: pq.read_table(path).to_pylist(),
        }[suffix](path)
        asked = [json.loads(line) for line in (clips / "qa.jsonl").read_text().splitlines()]
        ids = {Path(row["id"]).name for row in table}
        assert len(ids) == 2
        assert len(table) == sum(question["id"] in ids for question in asked)
    again = tokcli("infer", clip_cache, "--prompts", clips / "qa.jsonl", "-o", tmp_path / "answers.csv", "--limit", 2)
    assert "0 to do" in again.stderr


def test_infer_goes_on_where_it_was(tokcli: Tokcli, clip_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    arguments = ("infer", clip_cache, "--prompt", "Which shape is red?", "-o", path)
    tokcli(*arguments)
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:20])
    resumed = tokcli(*arguments)
    assert "2 answered already, 4 to do" in resumed.stderr
    now = [json.loads(line) for line in path.read_text().splitlines()]
    before = [json.loads(line) for line in whole.splitlines()]
    assert [(row["id"], row["answer"]) for row in now] == [(row["id"], row["answer"]) for row in before]


def test_methods_and_models(tokcli: Tokcli) -> None:
    listed = tokcli("methods", "--json").document["methods"]
    assert {"none", "dtd", "evs", "uniform", "random", "pool2d", "downsample"} <= {page["name"] for page in listed}
    page = tokcli("methods", "dtd", "--json").document
    assert page["name"] == "dtd"
    assert "threshold" in {option["name"] for option in page["options"]}
    assert "2504.17343" in tokcli("methods", "dtd").stdout
    families = json.dumps(tokcli("models", "--json").document)
    assert "qwen2_5_vl" in families and "qwen2_vl" in families and "nano" in families


def test_a_model_in_full(tokcli: Tokcli) -> None:
    page = tokcli("models", "nano", "--json").document
    checkpoint = page["checkpoint"]
    assert (checkpoint["width"], checkpoint["bytes_per_token"], checkpoint["deepstack_levels"]) == (192, 384, 0)
    folder = tokcli("models", page["family"], "--json").document
    assert folder["stored"] == page["stored"] and "checkpoint" not in folder
    refused = tokcli("models", "qwen9_vl")
    assert refused.code == 2 and "qwen9_vl" in refused.stderr


def test_doctor(tokcli: Tokcli) -> None:
    result = tokcli("doctor", "--json")
    assert result.code == 0
    checks = {check["name"]: check for check in result.document["checks"]}
    assert checks["torch"]["status"] == checks["nano"]["status"] == "ok"
    assert "GPL" in checks["ffmpeg"]["found"]


def test_doctor_names_the_accelerator_that_is_not_taken_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from tokcli.pipeline.doctor import diagnose

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    gpu = next(check for check in diagnose() if check.name == "gpu")
    assert gpu.status == "optional" and "--device mps" in gpu.remedy


def test_render_is_repeatable(tokcli: Tokcli, tmp_path: Path) -> None:
    for name in ("a", "b"):
        summary = tokcli("render", "-o", tmp_path / name, "--count", 3, "--seed", 5, "--json").document
        assert summary["files"] == 3
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    suffixes = {path.suffix for path in (tmp_path / "a").iterdir()}
    assert suffixes == {".mp4", ".webm", ".mkv", ".jsonl"}
    stills = tokcli("render", "-o", tmp_path / "c", "--kind", "still", "--count", 2, "--json")
    assert stills.document["media_seconds"] == 0
    assert {path.suffix for path in (tmp_path / "c").iterdir()} == {".png", ".jsonl"}


def test_run_does_all_steps_and_resumes(tokcli: Tokcli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    demo = Path(__file__).parents[2] / "recipes" / "demo.yaml"
    Path("demo").mkdir()
    arguments = ("run", demo, "--set", "render.count=2", "--set", "compress.workers=1", "--json")
    first = [json.loads(line) for line in tokcli(*arguments).stdout.splitlines()]
    assert first[0]["files"] == first[1]["done"] == 2
    assert len(first) == 2 + first[0]["questions"]
    second = [json.loads(line) for line in tokcli(*arguments).stdout.splitlines()]
    assert (second[1]["done"], second[1]["skipped"]) == (0, 2)
    assert [row["answer"] for row in second[2:]] == [row["answer"] for row in first[2:]]


def test_run_goes_on_behind_a_step_that_some_items_failed_in(
    tokcli: Tokcli, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("media").mkdir()
    Path("media/clip.mp4").write_bytes(next(clips.glob("static*.mp4")).read_bytes())
    Path("media/bad.mp4").write_bytes(b"nothing")
    Path("recipe.yaml").write_text(
        "compress: {inputs: [media], output: cache, workers: 1}\n"
        "infer: {cache: cache, prompt: ['What color is it?'], output: answers.jsonl}\n"
    )
    done = tokcli("run", "recipe.yaml")
    assert done.code == 3
    rows = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["media/clip.mp4"]
