"""The example of docs/examples that finds items which look alike."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch

import tokcli

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "search.py"


def test_a_copy_is_nearest_and_scores_are_those_of_their_definition(
    clip_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = clip_files[:4]
    for file in files:
        shutil.copy(file, tmp_path / file.name)
    shutil.copy(files[2], tmp_path / f"copy{files[2].suffix}")
    cache_path = str(tmp_path / "cache")
    assert tokcli.compress(tmp_path, cache_path, method="evs", keep=0.2, workers=1).done == 5
    cache = tokcli.open_cache(cache_path)
    asked = next(name for name in cache.ids() if name.endswith(files[2].name))
    example = runpy.run_path(str(SCRIPT))
    tokens = {item.id: torch.nn.functional.normalize(item.kept.tokens.float(), dim=1) for item in cache}
    # As many neighbours as there are tokens: then every item has some of each.
    monkeypatch.setitem(example["search"].__globals__, "NEIGHBOURS", sum(map(len, tokens.values())))
    found = example["search"](cache_path, asked)
    assert found[0][1].endswith(f"copy{files[2].suffix}") and found[0][0] == pytest.approx(1.0)
    assert [score for score, *_ in found] == sorted((score for score, *_ in found), reverse=True)
    for score, name, second in found:
        assert score == pytest.approx(float((tokens[asked] @ tokens[name].T).amax(dim=1).mean()), abs=1e-5)
        assert 0 <= second <= cache[name].duration_seconds
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), cache_path, asked])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("1.000 ") and said[0].endswith(f"copy{files[2].suffix}")
