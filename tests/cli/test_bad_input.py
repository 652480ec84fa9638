"""Bad input: one line that says what and what to do, the right exit code, nothing half done."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tokcli = Callable[..., Any]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "dttd"], ["unknown method 'dttd'", "did you mean 'dtd'", "`tokcli methods`"]),
        (["--method", "evs", "--keep", "0"], ["keep", "0"]),
        (["--method", "evs", "--keep", "2"], ["keep", "2"]),
        (["--method", "dtd", "--max-tokens", "9"], ["max"]),
        (["--method", "dtd", "--set", "thresold=0.3"], ["thresold", "threshold"]),
        (["--method", "dtd", "--set", "threshold"], ["--set", "KEY=VALUE"]),
        (["--model", "nanoo"], ["nanoo", "nano"]),
        (["--decoder", "vlc"], ["vlc", "pyav"]),
        (["--device", "tpu9"], ["tpu9", "cpu"]),
        (["--dtype", "int3"], ["int3", "float32"]),
        (["--codec", "int3"], ["--tokens-dtype", "int4"]),
        (["--fps", "0"], ["--fps", "above 0"]),
        (["--resize", "nearest"], ["resize", "swscale"]),
        (["--path-col", "file", "--limit", "1"], []),
    ],
)
def test_refused_before_any_work(
    tokcli: Tokcli, clips: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    result = tokcli("compress", clips, "-o", tmp_path / "cache", *arguments)
    if not words:  # an option for manifests does not matter to a folder
        assert result.code == 0
        return
    assert result.code == 2
    assert all(word in result.error for word in words), result.error
    assert not (tmp_path / "cache").exists()


def test_a_folder_is_named_as_it_is(tokcli: Tokcli, tmp_path: Path) -> None:
    """Brackets are how markup of the terminal is written; a closing tag that was never opened is an error there."""
    media, cache = tmp_path / "a [" / "red] b", tmp_path / "[dim]c"
    rendered = tokcli("render", "-o", media, "--kind", "still", "--count", 1)
    assert (rendered.code, rendered.stdout.startswith(str(media))) == (0, True), rendered.stdout
    assert str(cache) in tokcli("compress", media, "-o", cache, "--num-workers", 1).stdout
    assert str(cache) in tokcli("inspect", cache).stdout
    assert str(cache) in tokcli("verify", cache).stdout


@pytest.mark.parametrize("command", ["compress", "derive", "export", "merge", "render", "eval", "tune"])
def test_a_folder_does_not_go_to_a_pipe(
    tokcli: Tokcli, clip_cache: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    source = {"compress": [clips], "eval": [clips, "--qa", clips / "qa.jsonl"], "tune": [clips], "render": []}
    result = tokcli(command, *source.get(command, [clip_cache]), "-o", "-")
    assert (result.code, "is a folder" in result.error) == (2, True), result.stderr
    assert not list(tmp_path.iterdir())


def test_a_folder_may_be_called_as_standard_output_is(
    tokcli: Tokcli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tokcli("render", "-o", "./-", "--kind", "still", "--count", 1).code == 0
    assert (tmp_path / "-" / "qa.jsonl").exists()


def test_inputs_without_media(tokcli: Tokcli, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").write_text("no media")
    for source in ("empty", "text", "missing.mp4", "missing/*.mp4"):
        result = tokcli("compress", tmp_path / source, "-o", tmp_path / "cache")
        assert result.code == 2, source
        assert source.split("/")[0] in result.error
    assert not (tmp_path / "cache").exists()


def test_a_bad_manifest_row_is_one_failure(tokcli: Tokcli, clips: Path, tmp_path: Path) -> None:
    good = next(clips.glob("*.mp4"))
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"file,label\n{good},cat\n,dog\n{tmp_path / 'gone.mp4'},cow\n")
    result = tokcli("compress", manifest, "--path-col", "file", "-o", tmp_path / "cache", "--num-workers", 1, "--json")
    assert result.code == 3
    assert (result.document["items"], result.document["done"], result.document["failed"]) == (3, 1, 2)
    from tokcli.cache import open_cache

    assert open_cache(tmp_path / "cache").table().to_pylist()[0]["meta_label"] == "cat"
    wrong = tokcli("compress", manifest, "--path-col", "path", "-o", tmp_path / "other")
    assert wrong.code == 2
    assert "path" in wrong.error and "file" in wrong.error


def test_caches_that_are_none(tokcli: Tokcli, clips: Path, tmp_path: Path) -> None:
    for command in (["inspect"], ["verify"], ["infer", "--prompt", "What?"]):
        for place in (tmp_path / "none", clips):
            result = tokcli(*command[:1], place, *command[1:])
            assert result.code != 0
            assert "cache" in result.error
    occupied = tokcli("compress", clips, "-o", clips)
    assert occupied.code == 2
    assert (clips / "qa.jsonl").exists()


def test_a_cache_of_another_configuration(tokcli: Tokcli, clips: Path, clip_cache: Path) -> None:
    result = tokcli("compress", clips, "-o", clip_cache, "--method", "evs", "--keep", "0.5")
    assert result.code == 4
    assert "evs" in result.stderr and "--overwrite" in result.stderr
    rate = tokcli("compress", clips, "-o", clip_cache, "--method", "none", "--fps", "3")
    assert rate.code == 4
    assert "fps" in rate.stderr


def test_a_cache_of_another_model(tokcli: Tokcli, clip_cache: Path, other_checkpoint: Path) -> None:
    result = tokcli("infer", clip_cache, "--prompt", "What?", "--model", other_checkpoint)
    assert result.code == 4
    assert "nano" in result.error


def test_checkpoint_folder_without_weights(tokcli: Tokcli, clips: Path, tmp_path: Path) -> None:
    from tokcli.models import resolve_checkpoint

    folder = tmp_path / "hollow"
    shutil.copytree(resolve_checkpoint("nano"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    result = tokcli("compress", clips, "-o", tmp_path / "cache", "--model", folder)
    assert result.code == 2
    assert "hollow" in result.error and "weights" in result.error


@pytest.mark.parametrize("content", ["What?\n\nWhere?\n", ""])
def test_prompt_file_with_an_empty_line(tokcli: Tokcli, clip_cache: Path, tmp_path: Path, content: str) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text(content)
    result = tokcli("infer", clip_cache, "--prompts", path)
    assert result.code == 2
    assert "prompts.txt" in result.error


def test_infer_without_or_with_both_prompts(tokcli: Tokcli, clip_cache: Path) -> None:
    assert "prompt" in tokcli("infer", clip_cache).error
    assert "prompt" in tokcli("infer", clip_cache, "--prompt", "a", "--prompts", "b").error
    unknown = tokcli("infer", clip_cache, "--prompt", "a", "--id", "nobody.mp4")
    assert unknown.code == 2
    assert "nobody.mp4" in unknown.error
