"""`tokcli derive`, `--also`, and the commands that read what they made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokcli.cache import open_cache

Tokcli = Callable[..., Any]


def test_derive_then_inspect_verify_and_infer(tokcli: Tokcli, clip_cache: Path, tmp_path: Path) -> None:
    small, other = tmp_path / "small", tmp_path / "other"
    arguments = ("derive", clip_cache, "-o", small, "--method", "evs", "--keep", 0.3, "--also", f"dtd@0.2={other}")
    result = tokcli(*arguments, "--json")
    assert result.code == 0
    assert result.document["done"] == result.document["items"] == 6
    assert [one["output"] for one in result.document["also"]] == [str(other)]
    assert result.document["kept_tokens"] == tokcli("inspect", small, "--json").document["stats"]["kept_tokens"]
    assert tokcli("verify", small).code == tokcli("verify", other).code == 0
    again = tokcli(*arguments)
    assert again.stdout.count("6 of 6 items (0 new, 6 before, 0 failed)") == 2
    assert "no media and no tower" in again.stderr
    answered = tokcli("infer", small, "--prompt", "How many objects are there?", "--limit", 1, "--json")
    row = json.loads(answered.stdout.splitlines()[0])
    assert 0 < row["visual_tokens"] < row["source_tokens"]


def test_a_derived_cache_is_evaluated_beside_its_source(
    tokcli: Tokcli, clip_cache: Path, clips: Path, tmp_path: Path
) -> None:
    assert tokcli("derive", clip_cache, "-o", tmp_path / "a", "-m", "evs", "--keep", 0.3, "--limit", 1, "-q").code == 0
    assert tokcli("derive", tmp_path / "a", "-o", tmp_path / "b", "-m", "uniform", "--keep", 0.1, "-q").code == 0
    questions = tmp_path / "qa.jsonl"
    (item_id,) = open_cache(tmp_path / "b").ids()
    lines = (clips / "qa.jsonl").read_text().splitlines()
    questions.write_text("\n".join(line for line in lines if json.loads(line)["id"] == Path(item_id).name))
    result = tokcli(
        "eval", clip_cache, tmp_path / "a", tmp_path / "b", "--qa", questions, "-o", tmp_path / "eval", "--no-plots"
    )
    assert result.code == 0, result.stderr
    document = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert {"full", "evs"} <= {row["method"] for row in document["results"]}
    assert any(str(row["method"]).startswith("evs+uniform") for row in document["results"])


def test_what_cannot_be_derived_ends_with_2(tokcli: Tokcli, clip_cache: Path, clips: Path, tmp_path: Path) -> None:
    refused = (
        ((clip_cache, "--method", "downsample", "--keep", 0.5), "works before there are tokens"),
        ((clip_cache, "--method", "dtd", "--set", "criterion=pixel"), "--keep-signals pixel_change"),
        ((clip_cache, "--also", "dtd@0.1"), "is not NAME@BUDGET=FOLDER"),
        ((clip_cache, "--tokens-dtype", "float8"), "--tokens-dtype"),
    )
    for arguments, message in refused:
        result = tokcli("derive", *arguments, "-o", tmp_path / "out")
        assert result.code == 2
        assert message in result.error
    assert not (tmp_path / "out").exists()
    assert "is not a token cache" in tokcli("derive", clips, "-o", tmp_path / "out").error
    assert tokcli("derive", clip_cache, "-o", tmp_path / "out", "--method", "evs", "--limit", 1).code == 0
    assert tokcli("derive", clip_cache, "-o", tmp_path / "out", "--method", "uniform", "--keep", 0.1).code == 4


def test_a_recipe_derives(tokcli: Tokcli, clip_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(
        f"derive: {{cache: {clip_cache}, output: small, method: evs, keep: 0.2, also: [dtd@0.1=other]}}\n"
        'infer: {cache: small, prompt: ["What color is the circle?"], limit: 1}\n'
    )
    result = tokcli("run", "r.yaml", "--json")
    assert result.code == 0, result.stderr
    first, answer = (json.loads(line) for line in result.stdout.splitlines())
    assert (first["done"], first["also"][0]["done"]) == (6, 6)
    assert answer["visual_tokens"] < answer["source_tokens"]
