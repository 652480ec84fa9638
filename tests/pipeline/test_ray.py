"""Runs on a Ray cluster of two nodes on this machine, disturbed in the middle, against the local executor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cache_sameness import assert_same_caches
from PIL import Image
from two_nodes import (
    PLUGIN,
    TwoNodes,
    Watching,
    done_again,
    kill_an_actor,
    on_ray,
    own_processes,
    recipe,
    workers_of,
)

from tokcli.cache import open_cache, verify_cache
from tokcli.cache.layout import list_shards
from tokcli.methods import METHODS
from tokcli.pipeline.compress import compress
from tokcli.pipeline.render import render
from tokcli.recipe import RenderRecipe

pytest.importorskip("ray")
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the package, found in this process too."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "tokcli_slow.py").write_text(PLUGIN)
    about = folder / "tokcli_slow-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tokcli-slow\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[tokcli.methods]\nslow = tokcli_slow:slow\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setattr(METHODS, "_loaded", METHODS.loaded())
        yield folder


@pytest.fixture(scope="module")
def nodes(plugin: Path) -> Iterator[TwoNodes]:
    nodes = TwoNodes(plugin)
    yield nodes
    nodes.cluster.shutdown()
    until = time.monotonic() + 30
    while (left := own_processes("raylet", "gcs_server", "ray::")) and time.monotonic() < until:
        time.sleep(0.2)
    assert left == []


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips and a file that is none."""
    folder = tmp_path_factory.mktemp("media")
    render(RenderRecipe(output=str(folder), kind="short", count=12, seed=31))
    (folder / "qa.jsonl").unlink()
    (folder / "broken.mp4").write_bytes(b"no video at all" * 100)
    return folder


@pytest.fixture(scope="module")
def expected(media: Path, plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the local executor makes of it."""
    cache = tmp_path_factory.mktemp("local") / "cache"
    assert compress(recipe(media, cache)).failed == 1
    return cache


def test_a_run_whose_actor_is_killed_ends_as_a_local_one(
    nodes: TwoNodes, media: Path, expected: Path, tmp_path: Path
) -> None:
    watching = Watching(kill_an_actor)
    summary = on_ray(nodes, media, tmp_path / "cache", watching)
    assert watching.done
    assert "on Ray: nodes: 2, actors: 2, for each CPUs: 1, decoders: 1" in watching.notes
    # One that was still loading had nothing in hand, so how much is done again is not held here.
    (warning,) = watching.warnings
    assert "is gone (its process died)" in warning
    assert (summary.items, summary.done, summary.failed, summary.skipped) == (13, 12, 1, 0)
    assert {Path(item_id).name for item_id, _, _ in watching.failures} == {"broken.mp4"}
    progress = watching.last
    assert progress is not None
    assert (progress.done, progress.failed, progress.bytes_done) == (12, 1, progress.bytes_total)
    # An actor may have died between committing items and telling of them: they count, but what they hold is not shown.
    assert 0 < progress.kept_tokens <= summary.kept_tokens
    assert 0 < progress.media_seconds <= summary.media_seconds + 0.01
    assert_same_caches(expected, tmp_path / "cache")
    assert verify_cache(tmp_path / "cache") == []
    assert own_processes("ray::_Actor") == []


@pytest.mark.long
@pytest.mark.parametrize("graceful", [True, False])
def test_a_run_that_loses_a_node_ends_as_a_local_one(
    nodes: TwoNodes, media: Path, expected: Path, tmp_path: Path, graceful: bool
) -> None:
    watching = Watching(partial(nodes.lose_node, graceful))
    summary = on_ray(nodes, media, tmp_path / "cache", watching)
    assert done_again(watching.warnings)[0] > 0
    assert not graceful or "is gone (its node is gone)" in watching.warnings[0]
    assert (summary.done, summary.failed) == (12, 1)
    assert_same_caches(expected, tmp_path / "cache")


@pytest.mark.long
def test_a_file_that_kills_its_actors_costs_one_item(nodes: TwoNodes, media: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for path in media.glob("*-*.*"):
        (inputs / path.name).symlink_to(path)
    noise = np.random.default_rng(0).integers(0, 255, (64, 640, 3), dtype=np.uint8)
    Image.fromarray(noise).save(inputs / "poison.png")
    watching = Watching(lambda: None)
    summary = on_ray(nodes, inputs, tmp_path / "cache", watching)
    assert (summary.items, summary.done, summary.failed) == (13, 12, 1)
    assert len(done_again(watching.warnings)) == 3
    (row,) = open_cache(tmp_path / "cache").errors().to_pylist()
    assert Path(row["path"]).name == "poison.png"
    assert (row["stage"], row["error_class"], row["attempts"]) == ("encode", "ActorDied", 3)
    assert "the last with nothing else in work" in row["message"]
    local = tmp_path / "local"
    (inputs / "poison.png").unlink()
    compress(recipe(inputs, local))
    one, other = open_cache(local), open_cache(tmp_path / "cache")
    assert sorted(one.ids()) == sorted(other.ids())
    assert all((one[item_id].kept.tokens == other[item_id].kept.tokens).all() for item_id in one.ids())


@pytest.mark.long
def test_a_file_that_kills_its_decoders_costs_one_item(nodes: TwoNodes, media: Path, tmp_path: Path) -> None:
    Image.new("RGBA", (12_000, 10_000), (200, 10, 10, 128)).save(tmp_path / "large.png", compress_level=1)
    (tmp_path / "good.mp4").symlink_to(next(media.glob("*-*.mp4")))
    summary = on_ray(nodes, tmp_path, tmp_path / "cache", Watching(lambda: None), decoder_memory=512 << 20)
    assert (summary.done, summary.failed) == (1, 1)
    (row,) = open_cache(tmp_path / "cache").errors().to_pylist()
    assert (Path(row["path"]).name, row["error_class"]) == ("large.png", "MemoryLimit")


@pytest.mark.long
def test_several_caches_are_filled_and_gone_on_with(nodes: TwoNodes, media: Path, tmp_path: Path) -> None:
    also = [f"uniform@0.25={tmp_path / 'quarter'}"]
    on_ray(nodes, media, tmp_path / "cache", Watching(lambda: None), limit=5)
    summary = on_ray(nodes, media, tmp_path / "cache", Watching(kill_an_actor), also=also)
    assert (summary.items, summary.done, summary.skipped) == (13, 8, 4)
    assert (summary.also[0].done, summary.also[0].skipped) == (12, 0)
    assert summary.failed == summary.also[0].failed == 1
    local = [f"uniform@0.25={tmp_path / 'local-quarter'}"]
    compress(recipe(media, tmp_path / "local", also=local))
    assert_same_caches(tmp_path / "local", tmp_path / "cache")
    assert_same_caches(tmp_path / "local-quarter", tmp_path / "quarter")
    again = on_ray(nodes, media, tmp_path / "cache", Watching(lambda: None), also=also)
    assert (again.done, again.skipped, again.failed) == (0, 12, 1)


@pytest.mark.long
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_commits_leaves_no_actor_and_resumes(
    nodes: TwoNodes, media: Path, expected: Path, plugin: Path, tmp_path: Path, signum: signal.Signals
) -> None:
    nodes.complete()
    address = nodes.cluster.address if signum == signal.SIGTERM else "local"
    cache = tmp_path / "cache"
    options = ["--method", "slow", "--dtype", "float32", "--executor", "ray", "--ray-address", address]
    command = [sys.executable, "-m", "tokcli.cli.app", "compress", str(media), "-o", str(cache), *options]
    environment = {**os.environ, "PYTHONPATH": str(plugin), "TOKCLI_TEST_ARMED": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 300
    while not num_shards(cache) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    # A terminal sends it to the whole group, to what Ray has started too.
    (os.killpg if signum == signal.SIGINT else os.kill)(process.pid, signum)
    _, messages = process.communicate(timeout=200)
    assert process.returncode == 128 + signum
    assert "goes on from here" in messages
    until = time.monotonic() + 15
    while (left := workers_of(plugin)) and time.monotonic() < until:
        time.sleep(0.2)
    assert left == []
    assert 1 <= len(open_cache(cache)) <= 12
    assert verify_cache(cache) == []
    finished = subprocess.run(
        [*command, "--json", "--allow-errors"], env=environment, check=True, capture_output=True, text=True
    )
    assert len(finished.stdout.splitlines()) == 1
    assert json.loads(finished.stdout)["items"] == 13
    assert_same_caches(expected, cache)


def num_shards(cache: Path) -> int:
    return len(list_shards(cache)) if (cache / "manifest.json").exists() else 0
