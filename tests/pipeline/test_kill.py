"""`kill -9` of the whole process group at random moments, then the same command again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tokcli.cache import open_cache, verify_cache
from tokcli.pipeline.render import render
from tokcli.recipe import RenderRecipe


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips of a few seconds each."""
    folder = tmp_path_factory.mktemp("media")
    render(RenderRecipe(output=str(folder), kind="short", count=12, seed=21))
    return folder


def words(clips: Path, cache: Path) -> list[str]:
    return ["compress", str(clips), "-o", str(cache), "--dtype", "float32", "--num-workers", "1", "-q"]


def process_of(clips: Path, cache: Path) -> list[str]:
    # Shards of two items: a kill then also falls between, before and after commits.
    code = (
        "from tokcli.cache import CacheWriter; CacheWriter.__init__.__kwdefaults__['max_shard_items'] = 2;"
        "from tokcli.cli.app import main; main()"
    )
    return [sys.executable, "-c", code, *words(clips, cache)]


def kill_when_it_works(clips: Path, cache: Path, generator: random.Random) -> bool:
    """Start a run, wait until it has done a random share of its work, kill it; False if it ended before."""
    shards = len(list((cache / "data").glob("*.parquet")))
    wanted = shards + generator.randint(0, 2)
    process = subprocess.Popen(process_of(clips, cache), start_new_session=True, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        manifest = (cache / "manifest.json").exists()
        if manifest and len(list((cache / "data").glob("*.parquet"))) >= wanted:
            break
        time.sleep(0.005)
    try:
        process.wait(timeout=generator.uniform(0.0, 0.6))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def contents(cache: Path) -> dict[str, torch.Tensor]:
    opened = open_cache(cache)
    assert max(Counter(opened.ids()).values(), default=1) == 1
    return {item_id: opened[item_id].kept.tokens for item_id in opened.ids()}


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(2, marks=pytest.mark.timeout(1800)),
        pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)
def test_killed_runs_end_as_an_uninterrupted_one(
    media: Path, tmp_path: Path, run_tokcli: Callable[..., Any], kills: int
) -> None:
    """Kill, and go on with the same cache; a run that came to its end is compared, and the next cache is begun."""
    assert run_tokcli(*words(media, tmp_path / "whole")).code == 0
    whole = contents(tmp_path / "whole")
    generator = random.Random(kills)
    done, ended, cache = 0, 0, tmp_path / "killed-0"
    while done < kills:
        assert ended < kills, "hardly any kill fell into a run"
        if kill_when_it_works(media, cache, generator):
            done += 1
            if (cache / "manifest.json").exists():
                killed = contents(cache)  # a cache at every moment, of whole items
                assert all(torch.equal(killed[item_id], whole[item_id]) for item_id in killed)
        else:
            assert_whole(cache, whole)
            ended += 1
            cache = tmp_path / f"killed-{ended}"
    assert run_tokcli(*words(media, cache)).code == 0
    assert_whole(cache, whole)


def assert_whole(cache: Path, whole: dict[str, torch.Tensor]) -> None:
    killed = contents(cache)
    assert killed.keys() == whole.keys()
    assert all(torch.equal(killed[item_id], whole[item_id]) for item_id in whole)
    assert verify_cache(cache) == []
    assert not list(cache.rglob(".tmp-*"))
    assert (cache / "_SUCCESS").exists()


# The other is held at less cost by the test of a killed export: one handler serves all commands.
@pytest.mark.parametrize("signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_a_stop_commits_and_resumes(
    media: Path, tmp_path: Path, run_tokcli: Callable[..., Any], signum: signal.Signals
) -> None:
    cache = tmp_path / "cache"
    process = subprocess.Popen(process_of(media, cache), start_new_session=True, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((cache / "data").glob("*.parquet")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signum)
    _, messages = process.communicate(timeout=60)
    if process.returncode != 0:  # it may have finished first
        assert process.returncode == (130 if signum == signal.SIGINT else 143)
        assert "goes on from here" in messages
    before = len(open_cache(cache))
    assert before >= 2
    assert run_tokcli(*words(media, cache)).code == 0
    assert len(contents(cache)) == 12
    assert verify_cache(cache) == []
