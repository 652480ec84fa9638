"""The code of docs/python.md runs, block after block, as it stands there."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_blocks_run(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clips").symlink_to(clips)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    text = PAGE.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert len(blocks) >= 8
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        if "import datasets" in block[1] and find_spec("datasets") is None:
            continue
        # Lines as in the page, so that a failure names its place there.
        code = "\n" * text[: block.start(1)].count("\n") + block[1]
        exec(compile(code, str(PAGE), "exec"), names)
    assert names["tensors"] and names["summary"].failed == 0  # type: ignore[attr-defined]
    assert names["loss"].item() > 0  # type: ignore[attr-defined]
