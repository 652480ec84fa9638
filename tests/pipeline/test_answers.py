"""Answer files: formats, going on after a kill, refusal of another run's answers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tokcli.errors import CacheConflictError, CacheError, UsageError
from tokcli.pipeline.answers import AnswerFile

IDENTITY = {"model": "nano", "cache_fingerprint": "f00d"}


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"clip{number}", "prompt": "What?", "answer": 'red, "so"\nto say', "seconds": 0.5, **IDENTITY, **more}


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    return pq.read_table(path).to_pylist()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_rows_come_back_and_a_second_run_adds_to_them(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"answers{suffix}"
    first = AnswerFile(path, IDENTITY, overwrite=False)
    first.append([row(1), row(2)])
    first.finish()
    second = AnswerFile(path, IDENTITY, overwrite=False)
    assert second.done == {("clip1", "What?"), ("clip2", "What?")}
    second.append([row(3, kind="color")])
    second.finish()
    rows = read(path)
    assert [entry["id"] for entry in rows] == ["clip1", "clip2", "clip3"]
    assert rows[0]["answer"] == row(1)["answer"]
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_torn_last_line_is_asked_again(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"answers{suffix}"
    killed = AnswerFile(path, IDENTITY, overwrite=False)
    killed.append([row(1), row(2)])
    killed.close()
    journal = killed.journal
    journal.write_bytes(journal.read_bytes()[:-7])
    again = AnswerFile(path, IDENTITY, overwrite=False)
    assert again.done == {("clip1", "What?")}
    again.append([row(2)])
    again.finish()
    assert [entry["id"] for entry in read(path)] == ["clip1", "clip2"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_run_killed_behind_its_last_answer_is_finished_by_the_next(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"answers{suffix}"
    killed = AnswerFile(path, IDENTITY, overwrite=False)
    killed.append([row(1), row(2)])
    killed.close()
    again = AnswerFile(path, IDENTITY, overwrite=False)
    again.finish()  # there is nothing left to ask
    assert [entry["id"] for entry in read(path)] == ["clip1", "clip2"]
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_answers_about_a_changed_file_are_asked_again(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"answers{suffix}"
    first = AnswerFile(path, IDENTITY, overwrite=False)
    first.append([row(1, source_hash="aa"), row(2, source_hash="bb")])
    first.finish()
    again = AnswerFile(path, IDENTITY, overwrite=False, hashes={"clip1": "aa", "clip2": "cc"})
    assert again.stale == 1
    assert again.done == {("clip1", "What?")}
    again.append([row(2, source_hash="cc")])
    again.finish()
    assert [(entry["id"], entry["source_hash"]) for entry in read(path)] == [("clip1", "aa"), ("clip2", "cc")]


def test_another_run_is_refused_unless_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    first = AnswerFile(path, IDENTITY, overwrite=False)
    first.append([row(1)])
    first.finish()
    other = {**IDENTITY, "cache_fingerprint": "beef"}
    with pytest.raises(CacheConflictError, match="f00d, this run has beef"):
        AnswerFile(path, other, overwrite=False)
    assert AnswerFile(path, other, overwrite=True).done == set()


def test_bad_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown output format"):
        AnswerFile(tmp_path / "a.xlsx", IDENTITY, overwrite=False)
    with pytest.raises(UsageError, match="does not exist"):
        AnswerFile(tmp_path / "none" / "a.csv", IDENTITY, overwrite=False)
    notes = tmp_path / "notes.jsonl"
    notes.write_text('{"unrelated": 1}\n')
    with pytest.raises(CacheError, match="not a file of answers"):
        AnswerFile(notes, IDENTITY, overwrite=False)
    assert notes.read_text() == '{"unrelated": 1}\n'
