"""A disk that is full for real: a small tmpfs of the test's own, where the machine allows one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# Runs in a mount namespace of its own, in which it may mount what nobody else sees.
SCRIPT = """
import contextlib, io, json, subprocess, sys
from pathlib import Path

clips, disk = sys.argv[1:]
mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", disk]
subprocess.run(mount, check=True)
cache = Path(disk) / "cache"
sys.argv = ["tokcli", "compress", clips, "-o", str(cache), "--method", "none", "--dtype", "float32"]
sys.argv += ["--codec", "float32", "--num-workers", "1", "-q"]

from tokcli.cache import CacheWriter, open_cache, verify_cache
from tokcli.cli.app import main

CacheWriter.__init__.__kwdefaults__["max_shard_items"] = 1


def run():
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as end:
            return end.code or 0, said.getvalue()
    return 0, said.getvalue()


code, said = run()
opened = open_cache(cache)
report = {
    "code": code,
    "errors": [line for line in said.splitlines() if line.startswith("error:")],
    "items": len(list(opened)),
    "complete": opened.complete,
    "problems": len(verify_cache(cache)),
    "left": [path.name for path in cache.rglob(".tmp-*")],
}
subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
code, said = run()
opened = open_cache(cache)
report |= {
    "then": code,
    "all": len(list(opened)),
    "whole": opened.complete and verify_cache(cache) == [],
    "shards": len(list(cache.glob("data/*.parquet"))),
}
print(json.dumps(report))
"""


@pytest.fixture
def may_mount(tmp_path: Path) -> None:
    try_it = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    try:
        result = subprocess.run(try_it, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare here to make a mount namespace with")
    if result.returncode:
        pytest.skip(f"this machine allows no tmpfs of one's own: {result.stderr.strip()}")


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("may_mount")
def test_a_full_disk_ends_the_run_with_one_line_and_loses_nothing(clips: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    result = subprocess.run(
        ["unshare", "-rm", sys.executable, "-c", SCRIPT, str(clips), str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["code"] == 1
    (line,) = report["errors"]
    assert "cannot write in " in line and "No space left on device" in line and "what was committed before" in line
    assert 0 < report["items"] < 6
    assert (report["complete"], report["problems"], report["left"]) == (False, 0, [])
    assert (report["then"], report["all"], report["whole"]) == (0, 6, True)
    assert report["shards"] == 6  # none twice
    assert list(disk.iterdir()) == []  # it was another disk
