"""`tokcli infer`: how options reach the run, and what the command ends with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tokcli = Callable[..., Any]


def test_questions_that_fail_are_rows_and_the_command_ends_with_3(
    tokcli: Tokcli, clip_cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / "answers.csv"
    arguments = ("infer", clip_cache, "-p", "hi", "--method", "evs", "--max-tokens", 1, "--limit", 2, "-o", path)
    failed = tokcli(*arguments, "--json")
    assert failed.code == 3
    assert "2 failed" in failed.stderr
    for line in failed.stdout.splitlines():
        row = json.loads(line)
        assert (row["answer"], row["settings"]) == (None, "method=evs max_tokens=1 seed=0")
        assert "over max_tokens=1" in row["error"]
    again = tokcli(*arguments)
    assert (again.code, "0 to do" in again.stderr) == (3, True)
    assert tokcli(*arguments, "--allow-errors").code == 0
    assert "2 to do" in tokcli(*arguments, "--retry-errors").stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--where", "nothing = 1"), 2, "Referenced column"),
        (("--ids", "nobody.mp4"), 2, "no item 'nobody.mp4'"),
        (("--select", "nothing", "--keep", 0.1), 2, "unknown selector"),
        (("--schema", "nowhere.json"), 2, "cannot read the schema"),
        (("--top-k", 5), 2, "temperature 0 draws nothing"),
        (("--temperature", -1), 2, "temperature"),
        (("--group-by", "nothing"), 2, "no such column"),
        (("--model", "nano-clip", "--limit", 1), 4, "made by nano .*, this is nano-clip .*; use --model nano or"),
        (("--attn", "nothing", "--limit", 1), 2, "can't be loaded: .*nothing"),
    ],
)
def test_bad_options_are_one_line(
    tokcli: Tokcli, clip_cache: Path, tmp_path: Path, arguments: tuple[Any, ...], code: int, message: str
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text("what was here before")
    result = tokcli("infer", clip_cache, "-p", "What is red?", "-o", path, "--overwrite", *arguments)
    assert result.code == code
    assert re.search(message, result.error)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "what was here before"
