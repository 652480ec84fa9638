"""The crash table of docs/guarantees.md: every row is a kill at that very moment."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from guarantee_scenarios import SCENARIOS, compress

from tokcli.cache import faults

REPOSITORY = Path(__file__).parents[2]


def table() -> list[tuple[str, str]]:
    """(moment, command) of every row of the page."""
    text = (REPOSITORY / "docs" / "guarantees.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_.]+)` \| ([a-z, ]+) \|", text, re.MULTILINE)
    return [(moment, command) for moment, commands in rows for command in commands.split(", ")]


def killed_at(moment: str, act: Callable[[], object]) -> bool:
    """Run in a child that dies at the moment; False where it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            faults.arm(moment)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill leaves the page cache as it is."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize("most", [2, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize(("moment", "command"), table())
def test_killed_at(tmp_path: Path, moment: str, command: str, most: int) -> None:
    """Killed the first ``most`` times that it comes to the moment."""
    scenario = SCENARIOS[command]
    pristine = tmp_path / "pristine"
    pristine.mkdir()
    scenario.prepare(pristine / "cache")
    times = 1
    while times <= most:
        path = shutil.copytree(pristine, tmp_path / str(times)) / "cache"
        if not killed_at(f"{moment}:{times}", lambda path=path: scenario.act(path)):  # type: ignore[misc]
            break
        scenario.killed(path)
        scenario.act(path)
        scenario.finished(path)
        times += 1
    assert times > 1, f"{command} never came to {moment}"


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize("command", SCENARIOS)
def test_undisturbed(tmp_path: Path, command: str) -> None:
    scenario = SCENARIOS[command]
    scenario.prepare(tmp_path / "cache")
    scenario.act(tmp_path / "cache")
    scenario.finished(tmp_path / "cache")


# What stands in the folder the first time that a fresh compress run comes to a moment:
# (manifest, data shards, errors shards, temporaries, _SUCCESS).
SNAPSHOTS = {
    "manifest.before_write": (False, 0, 0, 0, False),
    "manifest.after_fsync": (False, 0, 0, 1, False),
    "manifest.after_rename": (True, 0, 0, 0, False),
    "open.before_removing_success": (False, 0, 0, 0, False),
    "open.after_removing_success": (False, 0, 0, 0, False),
    "shard.before_temporary": (True, 0, 0, 0, False),
    "shard.after_pages": (True, 0, 0, 1, False),
    "shard.before_fsync": (True, 0, 0, 1, False),
    "shard.after_fsync": (True, 0, 0, 1, False),
    "shard.after_rename": (True, 1, 0, 0, False),
    "shard.after_folder_fsync": (True, 1, 0, 0, False),
    "commit.between_tables": (True, 1, 0, 0, False),
    "success.before_write": (True, 2, 2, 0, False),
    "success.after_fsync": (True, 2, 2, 1, False),
    "success.after_rename": (True, 2, 2, 0, True),
}


@pytest.mark.usefixtures("no_fsync")
@pytest.mark.parametrize("moment", sorted({moment for moment, command in table() if command == "compress"}))
def test_what_is_on_disk(tmp_path: Path, moment: str) -> None:
    assert killed_at(moment, lambda: compress(tmp_path))
    assert SNAPSHOTS[moment] == (
        (tmp_path / "manifest.json").exists(),
        len(list(tmp_path.glob("data/*.parquet"))),
        len(list(tmp_path.glob("errors/*.parquet"))),
        len(list(tmp_path.rglob(".tmp-*"))),
        (tmp_path / "_SUCCESS").exists(),
    )


def test_the_table_has_every_moment_of_the_code() -> None:
    assert {moment for moment, _ in table()} == set(faults.POINTS)
    assert len(faults.POINTS) == len(set(faults.POINTS))


def test_the_code_has_no_other_moments() -> None:
    """Names that are spelled out stand in the list; those that are put together are by the two helpers alone."""
    put_together = set()
    for path in (REPOSITORY / "tokcli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fault_point":
                (name,) = node.args
                if isinstance(name, ast.Constant):
                    assert name.value in faults.POINTS, f"{path}: {name.value}"
                else:
                    put_together.add(path.name)
    assert put_together == {"atomic.py"}


def test_an_unknown_moment_is_refused() -> None:
    with pytest.raises(ValueError, match=r"names no moment; known: manifest\.before_write"):
        faults.arm("shard.whenever")


def test_the_environment_arms_a_process(tmp_path: Path) -> None:
    code = "import sys; from tokcli.cache.success import write_success; from pathlib import Path; "
    code += "[write_success(Path(sys.argv[1]), {'items': number, 'failed': 0}) for number in range(5)]"
    command = [sys.executable, "-c", code, str(tmp_path)]
    armed = subprocess.run(command, env={**os.environ, "TOKCLI_FAULT": "success.after_rename:3"}, check=False)
    assert armed.returncode == -signal.SIGKILL
    assert '"items":2' in (tmp_path / "_SUCCESS").read_text()
    subprocess.run(command, check=True)
    assert '"items":4' in (tmp_path / "_SUCCESS").read_text()
