"""``--shard i/n``: runs in processes of their own fill one folder."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cache_sameness import assert_same_caches

from tokcli.cache import open_cache, verify_cache
from tokcli.cache.part import Part, part_of
from tokcli.errors import UsageError
from tokcli.media import scan_inputs
from tokcli.pipeline.compress import compress
from tokcli.pipeline.preflight import check_request
from tokcli.recipe import CompressRecipe, load_recipe

REPOSITORY = Path(__file__).parents[2]
PARTS = 3
# Two for each part, the last of each part not a video.
IDS = [next(f"{kind}-{n}" for n in range(99) if part_of(f"{kind}-{n}", PARTS) == i) for i in range(3) for kind in "ab"]
BAD = IDS[1::2]


@pytest.fixture(scope="module")
def listing(clip_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of three clips and three files that are none, with ids of which the parts are known."""
    folder = tmp_path_factory.mktemp("listing")
    videos = iter(clip_files)
    (folder / "bad.mp4").write_bytes(b"nothing")
    with (folder / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "name"])
        rows.writerows(["bad.mp4" if name in BAD else str(next(videos)), name] for name in IDS)
    return folder / "list.csv"


def recipe(listing: Path, output: Path, **more: Any) -> CompressRecipe:
    values: dict[str, Any] = {
        "inputs": [str(listing)],
        "output": str(output),
        "id_col": "name",
        "workers": 1,
        "method": "uniform",
    }
    return CompressRecipe(**values | {"keep": 0.2, "dtype": "float32"} | more)


def words(listing: Path, output: Path, shard: str) -> list[str]:
    options = "--id-col name --num-workers 1 --method uniform --keep 0.2 --dtype float32 --allow-errors --json -q"
    return ["compress", str(listing), "-o", str(output), "--shard", shard, *options.split()]


@pytest.mark.timeout(900)
def test_a_part_that_is_killed_is_done_again(listing: Path, tmp_path: Path, run_tokcli: Callable[..., Any]) -> None:
    cache = tmp_path / "cache"
    to_be_killed = subprocess.Popen(
        [sys.executable, "-m", "tokcli.cli.app", *words(listing, cache, "2/3")],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TOKCLI_FAULT": "shard.before_fsync"},
    )
    told = run_tokcli(*words(listing, cache, "1/3"))
    assert (told.code, to_be_killed.wait()) == (0, -9)
    summary = told.document
    assert (summary["shard"], summary["items"], summary["done"], summary["failed"]) == ("1/3", 2, 1, 1)
    assert summary["missing"] == 4
    assert compress(recipe(listing, cache, shard="3/3")).missing == 2  # those of the killed one
    assert not open_cache(cache).complete
    assert sorted(open_cache(cache).ids()) == sorted({*IDS} - {*BAD} - {IDS[2]})
    assert len(list(cache.rglob(".tmp-002-of-003-*"))) == 1

    again = compress(recipe(listing, cache, shard="2/3"))
    assert (again.shard, again.items, again.done, again.skipped, again.failed) == ("2/3", 2, 1, 0, 1)
    assert again.missing == 0
    assert (again.source_bytes, again.media_seconds) == (
        open_cache(cache)[IDS[2]].source_bytes,
        round(open_cache(cache)[IDS[2]].duration_seconds, 3),
    )
    assert open_cache(cache).complete
    assert verify_cache(cache) == []
    assert list(cache.rglob(".tmp-*")) == []

    whole = compress(recipe(listing, cache))
    assert (whole.shard, whole.items, whole.done, whole.skipped, whole.failed) == (None, 6, 0, 3, 3)
    compress(recipe(listing, tmp_path / "alone"))
    assert_same_caches(cache, tmp_path / "alone")


def test_several_caches_from_one_sharded_run(listing: Path, tmp_path: Path) -> None:
    also = [f"uniform@0.1={tmp_path / 'small'}"]
    for number in range(1, PARTS + 1):
        summary = compress(recipe(listing, tmp_path / "cache", shard=f"{number}/{PARTS}", also=also))
        assert [one.missing for one in (summary, *summary.also)] == [2 * (PARTS - number)] * 2
        assert summary.also[0].shard == f"{number}/{PARTS}"
    for name in ("cache", "small"):
        assert open_cache(tmp_path / name).complete
        assert len(open_cache(tmp_path / name)) == 3


def test_more_parts_than_inputs(listing: Path, tmp_path: Path) -> None:
    empty = next(index for index in range(50) if not any(Part(index, 50).has(name) for name in IDS))
    summary = compress(recipe(listing, tmp_path / "cache", shard=str(Part(empty, 50))))
    assert (summary.items, summary.done, summary.missing) == (0, 0, 6)


def test_files_of_other_parts_are_not_looked_at(listing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each machine asks the file system for its own share only, and all shares are all there is."""
    asked: list[str] = []
    stat = os.stat

    def noted(path: Any, **how: Any) -> os.stat_result:
        asked.append(Path(path).name)
        return stat(path, **how)

    monkeypatch.setattr(os, "stat", noted)
    for index in range(PARTS):
        asked.clear()
        scan = scan_inputs([str(listing)], id_col="name", wanted=Part(index, PARTS).has)
        assert [item.id for item in scan.items] == IDS[2 * index : 2 * index + 2]
        assert sorted(scan.elsewhere) == sorted({*IDS} - {item.id for item in scan.items})
        assert sorted(name for name in asked if name.endswith((".mp4", ".webm", ".mkv"))) == sorted(
            Path(item.path).name for item in scan.items
        )


def test_inputs_that_cannot_be_taken_have_a_part_too(tmp_path: Path) -> None:
    rows = [f"gone-{number}.mp4" for number in range(6)]
    (tmp_path / "list.csv").write_text("path\n" + "\n".join(rows) + "\n")
    whole = scan_inputs([str(tmp_path / "list.csv")])
    parts = [scan_inputs([str(tmp_path / "list.csv")], wanted=Part(index, 2).has) for index in range(2)]
    assert [failure.id for failure in whole.failures] and not whole.elsewhere
    for index, scan in enumerate(parts):
        assert scan.failures == [failure for failure in whole.failures if Part(index, 2).has(failure.id)]
        assert len(scan.failures) + len(scan.elsewhere) == 6


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"shard": "4/3"}, r"--shard '4/3': parts are counted from 1 to n, the last of 3 is 3/3"),
        ({"shard": "third"}, r"--shard 'third' is not i/n; write for example --shard 3/8"),
        ({"shard": "1/3", "overwrite": True}, "--overwrite would delete what other shards write"),
        ({"shard": "1/3", "prune": True}, "--prune rewrites the whole cache"),
        ({"shard": "1/3", "limit": 2}, "--limit and --shard"),
    ],
)
def test_what_does_not_go_together(listing: Path, tmp_path: Path, more: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        check_request(recipe(listing, tmp_path / "cache", **more))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_a_shard_does_not_search_a_method(listing: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every shard needs the same method; run `tokcli tune` first"):
        recipe(listing, tmp_path, method="auto", keep=None, shard="1/3")


def test_the_script_for_slurm_names_the_part(tmp_path: Path) -> None:
    """The script of docs/scale.md, with programs in the place of Slurm's and ours that tell how they were called."""
    text = (REPOSITORY / "docs" / "scale.md").read_text(encoding="utf-8")
    (script,) = (block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "#SBATCH" in block)
    for name, body in (("srun", 'exec "$@"'), ("tokcli", 'printf "%s\\n" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    # Two tasks that are sent again: their number is not that of the parts.
    task = {"SLURM_ARRAY_TASK_ID": "19", "SLURM_ARRAY_TASK_COUNT": "2"}
    ran = subprocess.run(["bash"], input=script, env={"PATH": path, **task}, capture_output=True, text=True, check=True)
    command, recipe_path, *settings = ran.stdout.split()
    assert command == "run"
    assert settings == ["--set", "compress.shard=19/64"]
    loaded = load_recipe(REPOSITORY / recipe_path, {"compress.shard": "19/64"})
    assert loaded.compress is not None
    assert Part.parse(loaded.compress.shard or "") == Part(18, 64)
    assert re.search(r"--array=1-64\b", script)
