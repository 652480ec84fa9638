"""Caches that the tests of the Python interface read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import tokcli

# Tiny checkpoints of every family, and transformers' own runs of them, stand with the tests of the models.
for folder in ("models", "cache"):
    sys.path.append(str(Path(__file__).parents[1] / folder))


@pytest.fixture(scope="session")
def exact_cache(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tokens of the rendered clips by nano, in float32."""
    cache = tmp_path_factory.mktemp("api") / "cache"
    assert tokcli.compress(clips, cache, method="none", dtype="float32", workers=1).failed == 0
    return cache
