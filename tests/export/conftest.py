"""Caches that are exported, and helpers of the tests of models and caches."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for folder in ("models", "cache"):
    sys.path.append(str(Path(__file__).parents[1] / folder))

from cache_common import make_item, make_manifest, write_cache  # noqa: E402
from exporting import IDS  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fingerprints are remembered in a folder of our own instead of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKCLI_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session")
def odd_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Items with odd ids, columns of the user's, one with no tokens, in float16."""
    path = tmp_path_factory.mktemp("odd") / "cache"
    items = [
        make_item(
            item_id, kept=0 if item_id == "con" else 10 + number, seed=number, metadata={"label": f"cat {number}"}
        )
        for number, item_id in enumerate(IDS)
    ]
    write_cache(
        path, *items, manifest=make_manifest(model={"model": "nano", "family": "qwen2_5_vl", "fingerprint": "f"})
    )
    return path


@pytest.fixture(scope="session")
def merged_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One item whose tokens were merged, stored as int8."""
    import torch

    path = tmp_path_factory.mktemp("merged") / "cache"
    assignment = (torch.arange(512) % 21 - 1).int()
    mass = torch.bincount(assignment[assignment >= 0].long(), minlength=20).float()
    item = make_item("m.mp4", kept=20, seed=3, mass=mass, assignment=assignment)
    write_cache(path, item, make_item("n.mp4", kept=5, seed=4), manifest=make_manifest(tokens_dtype="int8"))
    return path
