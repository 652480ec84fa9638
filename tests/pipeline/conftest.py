"""Runs in float32 on every machine: with bfloat16 units, how a clip is cut decides how its products round."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tokcli.models import LanguageModel, load_language_model
from tokcli.pipeline.compress import compress
from tokcli.recipe import CompressRecipe


@pytest.fixture(scope="package", autouse=True)
def float32_by_default() -> Iterator[None]:
    """What ``dtype="auto"`` picks where bfloat16 is not fast."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tokcli.models.placement.fast_in_bfloat16", lambda device: False)
        yield


@pytest.fixture(scope="session")
def copied(clip_files: list[Path]) -> Callable[..., Path]:
    """Copies the first ``count`` clips into ``folder``, and with ``bad`` adds a file that is none, ``bad.mp4``."""

    def copy(folder: Path, count: int, *, bad: bool = False) -> Path:
        folder.mkdir(exist_ok=True)
        for path in clip_files[:count]:
            shutil.copy(path, folder)
        if bad:
            (folder / "bad.mp4").write_bytes(b"nothing")
        return folder

    return copy


@pytest.fixture(scope="session")
def labelled_cache(clip_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips with all tokens; their labels are cat, dog, cat and none at all."""
    folder = tmp_path_factory.mktemp("infer")
    rows = [{"path": str(path), "id": path.stem, "year": 2000 + i} for i, path in enumerate(clip_files[:4])]
    for row, label in zip(rows, ("cat", "dog", "cat")):
        row["label"] = label
    manifest = folder / "clips.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = CompressRecipe(
        inputs=[str(manifest)], output=str(folder / "cache"), method="none", id_col="id", dtype="float32", workers=1
    )
    assert compress(recipe).failed == 0
    return folder / "cache"


@pytest.fixture(scope="session")
def nano() -> LanguageModel:
    return load_language_model("nano", dtype="float32", device="cpu")
