"""`kill -9` of the whole process group at random moments, then the same command again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from tokcli.cache import open_cache, verify_cache
from tokcli.pipeline.render import render
from tokcli.recipe import RenderRecipe


def command(clips: Path, cache: Path) -> list[str]:
    # Shards of two items: a kill then also falls between, before and after commits.
    code = (
        "from tokcli.cache import CacheWriter; CacheWriter.__init__.__kwdefaults__['max_shard_items'] = 2;"
        "from tokcli.cli.app import main; main()"
    )
    arguments = ["compress", str(clips), "-o", str(cache), "--method", "dtd", "--num-workers", "1", "-q"]
    return [sys.executable, "-c", code, *arguments]


def kill_when_it_works(clips: Path, cache: Path, generator: random.Random) -> bool:
    """Start a run, wait until it has done a random share of its work, kill it; False if it ended before."""
    shards = len(list((cache / "data").glob("*.parquet")))
    wanted = shards + generator.randint(0, 2)
    process = subprocess.Popen(command(clips, cache), start_new_session=True, stderr=subprocess.DEVNULL)
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
        pytest.param(3, marks=pytest.mark.timeout(1800)),
        pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)
def test_killed_runs_end_as_an_uninterrupted_one(tmp_path: Path, kills: int) -> None:
    """Kill, and go on with the same cache; a run that came to its end is compared, and the next cache is begun."""
    clips = tmp_path / "clips"
    render(RenderRecipe(output=str(clips), count=8, seed=21))
    subprocess.run(command(clips, tmp_path / "whole"), check=True)
    whole = contents(tmp_path / "whole")
    generator = random.Random(kills)
    done, ended, cache = 0, 0, tmp_path / "killed-0"
    while done < kills:
        assert ended < kills, "hardly any kill fell into a run"
        if kill_when_it_works(clips, cache, generator):
            done += 1
            if (cache / "manifest.json").exists():
                killed = contents(cache)  # a cache at every moment, of whole items
                assert all(torch.equal(killed[item_id], whole[item_id]) for item_id in killed)
        else:
            assert_whole(cache, whole)
            ended += 1
            cache = tmp_path / f"killed-{ended}"
    subprocess.run(command(clips, cache), check=True)
    assert_whole(cache, whole)


def assert_whole(cache: Path, whole: dict[str, torch.Tensor]) -> None:
    killed = contents(cache)
    assert killed.keys() == whole.keys()
    assert all(torch.equal(killed[item_id], whole[item_id]) for item_id in whole)
    assert verify_cache(cache) == []
    assert not list(cache.rglob(".tmp-*"))
    assert (cache / "_SUCCESS").exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_commits_and_resumes(tmp_path: Path, signum: signal.Signals) -> None:
    clips, cache = tmp_path / "clips", tmp_path / "cache"
    render(RenderRecipe(output=str(clips), count=12, seed=22))
    process = subprocess.Popen(command(clips, cache), start_new_session=True, stderr=subprocess.PIPE, text=True)
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
    subprocess.run(command(clips, cache), check=True)
    assert len(contents(cache)) == 12
    assert verify_cache(cache) == []
