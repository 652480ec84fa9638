"""The file of outcomes: going on after a kill, and other evaluations refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokcli.cache.lock import CacheLockedError
from tokcli.errors import CacheConflictError, CacheError
from tokcli.evaluate.journal import Journal

CONFIGURATION = {"model": "m", "sampling": {"fps": 1.0}}


def test_lines_come_back_and_a_torn_one_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.jsonl"
    with Journal(path, CONFIGURATION) as journal:
        journal.add("a", {"value": 1})
        journal.add("b", {"value": 2})
        journal.add("a", {"value": 3})
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with Journal(path, CONFIGURATION) as journal:
        assert {key: line["value"] for key, line in journal.lines.items()} == {"a": 1, "b": 2}
        journal.add("a", {"value": 3})
    assert path.read_bytes() == whole


def test_torn_in_its_first_line(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.jsonl"
    path.write_text('{"configuration": {"mod')
    with Journal(path, CONFIGURATION) as journal:
        assert journal.lines == {}
    with Journal(path, CONFIGURATION) as journal:
        assert journal.lines == {}


def test_another_configuration_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.jsonl"
    with Journal(path, CONFIGURATION) as journal:
        journal.add("a", {})
    with pytest.raises(CacheConflictError, match=r'sampling: \{"fps": 1.0\} before, \{"fps": 2.0\} now') as caught:
        Journal(path, {**CONFIGURATION, "sampling": {"fps": 2.0}})
    assert caught.value.exit_code == 4
    with Journal(path, {"model": "n"}, overwrite=True) as journal:
        assert journal.lines == {}


def test_one_run_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.jsonl"
    with Journal(path, CONFIGURATION) as journal:
        journal.add("a", {})
        whole = path.read_bytes()
        with pytest.raises(CacheLockedError, match="is being written by process"):
            Journal(path, CONFIGURATION, overwrite=True)
        assert path.read_bytes() == whole
    with pytest.raises(CacheConflictError):
        Journal(path, {"model": "n"})
    with Journal(path, CONFIGURATION) as journal:  # neither the one before nor the refused one holds it any more
        assert list(journal.lines) == ["a"]


def test_other_files_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.jsonl"
    for text in ("notes\n", '{"unrelated": 1}\n', "[1]\n"):
        path.write_text(text)
        with pytest.raises(CacheError, match="not a file of outcomes"):
            Journal(path, CONFIGURATION)
        assert path.read_text() == text
