"""Output that nobody reads to its end, as with `tokcli ... | head`: the work is done all the same, without a word."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tokcli.cache import open_cache

COMMAND = (sys.executable, "-m", "tokcli.cli.app")


@pytest.fixture
def media(clips: Path, tmp_path: Path) -> Path:
    """A clip and a file that is none."""
    folder = tmp_path / "media"
    folder.mkdir()
    shutil.copy2(next(clips.glob("static*")), folder)
    (folder / "bad.mp4").write_bytes(b"nothing")
    return folder


@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout-and-stderr"])
def test_a_run_that_nobody_listens_to_does_its_work(media: Path, tmp_path: Path, both: bool) -> None:
    cache = tmp_path / "cache"
    reading, writing = os.pipe()
    os.close(reading)  # what `head` does when it has its lines
    done = subprocess.run(
        [*COMMAND, "compress", str(media), "-o", str(cache), "--num-workers", "1", *([] if both else ["--json"])],
        stdout=writing,
        stderr=writing if both else subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert done.returncode == 3, "as the run ended: a file failed"
    assert both or not any(word in done.stderr for word in ("Traceback", "BrokenPipe", "Exception", "error:"))
    opened = open_cache(cache)
    assert opened.complete and (len(opened), len(opened.errors())) == (1, 1)


def test_a_list_that_nobody_reads_to_its_end_is_no_failure(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, "methods"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_that_nobody_reads_keeps_its_exit_code(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "compress", str(tmp_path / "none"), "-o", str(tmp_path / "cache")], stdout=writing, stderr=writing
    )
    os.close(writing)
    assert done.returncode == 2


def unheard(*arguments: object) -> int:
    """The exit code of a command whose output nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, *map(str, arguments)], stdout=writing, stderr=subprocess.DEVNULL)
    os.close(writing)
    return done.returncode


def test_what_was_found_out_is_the_exit_code_though_nobody_reads_it(clip_cache: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(clip_cache, cache)
    shard = next((cache / "data").iterdir())
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    assert unheard("verify", cache) == 5
    assert unheard("repair", cache, "--dry-run") == 5
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    assert unheard("debug", tmp_path / "bad.mp4", "--json") == 3


def test_answers_are_written_to_the_last_though_nobody_watches(clip_cache: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    ask = ("infer", clip_cache, "-p", "What color is it?", "--limit", 3, "--batch-size", 1)
    assert unheard(*ask, "-o", answers, "--json") == 0
    assert len(answers.read_text().splitlines()) == 3


def test_a_recipe_is_done_to_its_end_though_nobody_watches(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    clips, cache = tmp_path / "clips", tmp_path / "cache"
    recipe.write_text(
        f"render: {{output: {clips}, count: 1, format: mp4}}\n"
        f"compress: {{inputs: [{clips}], output: {cache}, workers: 1}}\n"
    )
    assert unheard("run", recipe) == 0
    assert open_cache(cache).complete
