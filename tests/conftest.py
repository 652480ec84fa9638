"""Fixtures for the whole suite: rendered clips, a cache of them, real media where they are."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

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


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first worker of a parallel session makes, and that the others take as it is."""
    root = factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            unfinished = factory.mktemp(name)
            make(unfinished)
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six rendered clips (mp4, webm, mkv) with their qa.jsonl."""
    from tokcli.pipeline.render import render
    from tokcli.recipe import RenderRecipe

    return made_once(
        tmp_path_factory, "clips", lambda folder: render(RenderRecipe(output=str(folder), count=6, seed=11))
    )


@pytest.fixture(scope="session")
def clip_files(clips: Path) -> list[Path]:
    """The rendered clips alone, in order of their names."""
    return sorted(path for path in clips.iterdir() if path.suffix != ".jsonl")


@pytest.fixture(scope="session")
def clip_cache(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the rendered clips with all tokens kept."""
    from tokcli.pipeline.compress import compress
    from tokcli.recipe import CompressRecipe

    def make(folder: Path) -> None:
        # The same on every machine: where bfloat16 is fast, it is what the model would run in.
        settings = {"method": "none", "workers": 1, "dtype": "float32"}
        assert compress(CompressRecipe(inputs=[str(clips)], output=str(folder / "full"), **settings)).failed == 0

    return made_once(tmp_path_factory, "clip-caches", make) / "full"


@dataclass(frozen=True)
class Result:
    """What a command printed, and what it ended with."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The last line of stdout as JSON."""
        return json.loads(self.stdout.splitlines()[-1])

    @property
    def error(self) -> str:
        """The only error line."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, self.stderr
        return lines[0]


@pytest.fixture
def run_tokcli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs `tokcli` with these arguments in this process: seconds sooner than one of its own, which must import all."""

    def run(*arguments: object) -> Result:
        from tokcli.cli.app import main

        monkeypatch.setattr(sys, "argv", ["tokcli", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run
