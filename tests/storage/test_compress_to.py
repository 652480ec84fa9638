"""Whole runs into a bucket and out of it, by the command line where the process matters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest

from tokcli.cache import open_cache
from tokcli.errors import CacheError, UsageError
from tokcli.pipeline.compress import compress
from tokcli.recipe import CompressRecipe
from tokcli.storage.scratch import PREFIX

URL = "s3://bucket/caches/run"


def tokens(cache: str | Path) -> dict[str, bytes]:
    return {
        Path(item.id).name: item.kept.tokens.numpy().tobytes() + item.kept.coords.numpy().tobytes()
        for item in open_cache(cache)
    }


@pytest.fixture
def videos(s3, clips: Path) -> str:
    filesystem = fsspec.filesystem("s3")
    for path in sorted(path for path in clips.iterdir() if path.suffix in (".mp4", ".webm", ".mkv")):
        filesystem.put_file(str(path), f"bucket/videos/{path.name}")
    s3.forget()
    return "s3://bucket/videos/"


def test_from_the_bucket_into_the_bucket_and_asked_there(s3, videos, clip_cache, tmp_path):
    recipe = CompressRecipe(inputs=[videos], output=URL, method="none", workers=1, dtype="float32")
    summary = compress(recipe)
    assert (summary.done, summary.failed) == (6, 0)
    assert tokens(URL) == tokens(clip_cache)
    puts = [path for method, path, _ in s3.requests if method == "PUT"]
    assert len(puts) == 3  # the manifest, one shard, the mark

    s3.forget()
    again = compress(recipe)
    assert (again.done, again.skipped) == (0, 6)
    assert [path for method, path, _ in s3.requests if method == "GET" and "/videos/" in path] == []

    from tokcli.pipeline.infer import infer
    from tokcli.recipe import InferRecipe

    asked = [
        infer(InferRecipe(cache=str(cache), prompt=["What moves?"], output=str(tmp_path / name), limit=2))
        for cache, name in ((URL, "remote.jsonl"), (clip_cache, "local.jsonl"))
    ]
    assert all(one.failed == 0 for one in asked)
    answers = [
        sorted(json.loads(line)["answer"] for line in (tmp_path / name).read_text().splitlines())
        for name in ("remote.jsonl", "local.jsonl")
    ]
    assert answers[0] == answers[1] and len(answers[0]) == 2


def test_commands_on_a_cache_in_a_bucket(s3, videos, clip_cache, run_tokcli):
    from tokcli.cache import merge_caches

    merge_caches([clip_cache], URL)
    assert run_tokcli("inspect", URL, "--json").document["stats"]["items"] == 6
    assert run_tokcli("verify", URL).code == 0
    refused = run_tokcli("compact", URL)
    assert refused.code == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    missing = run_tokcli("compress", videos, "-o", "s3://nobucket/cache")
    assert missing.code == 1 and "bucket does not exist" in missing.error
    assert "Traceback" not in missing.stderr


def test_a_refused_bucket_ends_the_run_before_any_work(s3, videos):
    s3.refuse = lambda method, path: 403 if "caches" in path else None
    with pytest.raises((CacheError, UsageError)) as caught:
        compress(CompressRecipe(inputs=[videos], output=URL, workers=1, dtype="float32"))
    assert "\n" not in str(caught.value) and URL in str(caught.value)
    assert not [path for _, path, _ in s3.requests if path.startswith("/bucket/videos/")]


@pytest.mark.long
def test_a_run_that_is_killed_goes_on(s3, videos, clip_cache, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    words = ["compress", videos, "-o", URL, "--method", "none", "--dtype", "float32", "--num-workers", "1"]
    started = {
        "args": [sys.executable, "-m", "tokcli.cli.app", *words],
        "env": {**os.environ, "TMPDIR": str(temporary)},
    }
    running = subprocess.Popen(**started)
    deadline = time.monotonic() + 120
    while not s3.counts("/videos/static") and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    running.kill()
    assert running.wait() == -9
    subprocess.run(**started, check=True)
    assert tokens(URL) == tokens(clip_cache)
    assert open_cache(URL).complete
    assert list(temporary.glob(f"{PREFIX}*")) == []
