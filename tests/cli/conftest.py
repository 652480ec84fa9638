"""The command, by its name; and a model that caches of the bundled one are not for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def tokcli(run_tokcli: Callable[..., Any]) -> Callable[..., Any]:
    return run_tokcli


@pytest.fixture
def other_checkpoint(tmp_path: Path) -> Path:
    """A copy of the bundled checkpoint with one tower weight changed: it must not answer from nano's caches."""
    from safetensors.torch import load_file, save_file

    from tokcli.models import resolve_checkpoint

    folder = tmp_path / "other"
    shutil.copytree(resolve_checkpoint("nano"), folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "visual" in name)
    weights[name] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
