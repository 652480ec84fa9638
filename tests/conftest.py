"""Fixtures for the whole suite: rendered clips, a cache of them, real media where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
MEDIA = Path(os.environ.get("TOKCLI_MEDIA", REPOSITORY.parent / "shared" / "media"))


def pytest_configure(config: pytest.Config) -> None:
    # One thread each, whatever the machine says: the suite runs in parallel, and children that some tests fork would
    # wait for ever for OpenMP threads that only their parent has.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not MEDIA.is_dir():
        skip = pytest.mark.skip(reason="no real media here; set TOKCLI_MEDIA")
        for item in items:
            if item.get_closest_marker("media"):  # not keywords: those hold the names of folders too
                item.add_marker(skip)


@pytest.fixture(scope="session")
def real_media() -> Path:
    """Folder with `video`, `image` and `corrupt`; tests that use it are marked `media`."""
    return MEDIA


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six rendered clips (mp4, webm, mkv) with their qa.jsonl."""
    from tokcli.pipeline.render import render
    from tokcli.recipe import RenderRecipe

    folder = tmp_path_factory.mktemp("clips")
    render(RenderRecipe(output=str(folder), count=6, seed=11))
    return folder


@pytest.fixture(scope="session")
def clip_cache(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the rendered clips with all tokens kept."""
    from tokcli.pipeline.compress import compress
    from tokcli.recipe import CompressRecipe

    cache = tmp_path_factory.mktemp("caches") / "full"
    # The same on every machine: where bfloat16 is fast, it is what the model would run in.
    recipe = CompressRecipe(inputs=[str(clips)], output=str(cache), method="none", workers=1, dtype="float32")
    summary = compress(recipe)
    assert summary.failed == 0
    return cache
