"""``tokcli.compress`` is the command, without printing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tokcli
from tokcli.errors import CacheConflictError, MethodError, RecipeError, UsageError


def test_the_function_makes_the_cache_of_the_command(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], run_tokcli: Callable[..., Any]
) -> None:
    summary = tokcli.compress(
        [str(clips)], tmp_path / "one", method="dtd", threshold=0.4, options={"reference": "kept"}, fps=2, workers=1
    )
    assert capsys.readouterr() == ("", "")
    flags = ["--method", "dtd", "--threshold", "0.4", "--set", "reference=kept", "--fps", "2", "--num-workers", "1"]
    assert run_tokcli("compress", clips, "-o", tmp_path / "other", *flags).code == 0
    one, other = tokcli.open_cache(tmp_path / "one"), tokcli.open_cache(tmp_path / "other")
    assert one.fingerprint == other.fingerprint and sorted(one.ids()) == sorted(other.ids())
    for item in one:
        assert torch.equal(item.kept.tokens, other[item.id].kept.tokens)
    assert (summary.items, summary.done, summary.failed, summary.output) == (6, 6, 0, str(tmp_path / "one"))
    assert summary.kept_tokens == sum(len(item.kept) for item in one) < summary.source_tokens
    again = tokcli.compress(
        clips, tmp_path / "one", method="dtd", threshold=0.4, options={"reference": "kept"}, fps=2, workers=1
    )
    assert (again.done, again.skipped) == (0, 6)
    with pytest.raises(CacheConflictError, match="threshold"):
        tokcli.compress(clips, tmp_path / "one", method="dtd", threshold=0.5, fps=2, workers=1)


def test_frames_by_number(clips: Path, tmp_path: Path) -> None:
    tokcli.compress(clips, tmp_path, method="none", num_frames=4, limit=1, workers=1)
    (item,) = tokcli.open_cache(tmp_path)
    assert len(item.times) == 4


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "evil"}, MethodError, "evil"),
        ({"keeep": 0.5}, RecipeError, r"unknown key 'keeep'; did you mean 'keep'\?"),
        ({"fps": -1}, RecipeError, "fps"),
        ({"method": "auto"}, UsageError, "tokcli tune"),
        ({"model": "nona"}, UsageError, "unknown model 'nona'"),
    ],
)
def test_what_cannot_work_is_one_line_and_writes_nothing(
    clips: Path, tmp_path: Path, arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        tokcli.compress(clips, tmp_path / "cache", workers=1, **arguments)  # type: ignore[arg-type]
    assert isinstance(raised.value, tokcli.TokcliError) and "\n" not in str(raised.value)
    assert not (tmp_path / "cache").exists()


def test_names_are_there_and_cost_nothing() -> None:
    assert all(getattr(tokcli, name) is not None for name in dir(tokcli))
    with pytest.raises(AttributeError, match="has no attribute 'compres'"):
        _ = tokcli.compres  # type: ignore[attr-defined]
    code = "import sys, tokcli; tokcli.open_cache; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
