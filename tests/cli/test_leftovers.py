"""What a command leaves in the folder for temporary files: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"


@pytest.fixture
def left(clip_files: list[Path], tmp_path: Path) -> Callable[..., list[str]]:
    """Compresses a clip in a process of its own, and lists what is in its TMPDIR then."""

    def run(**environment: str) -> list[str]:
        temporary = tmp_path / "tmp"
        temporary.mkdir(exist_ok=True)
        words = ["compress", str(clip_files[0]), "-o", str(tmp_path / "cache"), "--overwrite", "--num-workers", "1"]
        given = {name: value for name, value in os.environ.items() if name != INDUCTOR}
        given |= {"TMPDIR": str(temporary)} | environment
        subprocess.run([sys.executable, "-m", "tokcli", *words, "-q"], env=given, check=True)
        return sorted(path.name for path in temporary.iterdir())

    return run


def test_nothing_is_left_in_the_folder_for_temporary_files(left: Callable[..., list[str]]) -> None:
    assert left() == []


@pytest.mark.long  # four processes that load torch
def test_what_was_compiled_stays_and_so_does_a_folder_that_was_asked_for(
    left: Callable[..., list[str]], tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    asked.mkdir()
    assert left(**{INDUCTOR: str(asked)}) == []
    assert asked.is_dir()
    default = subprocess.run(
        [sys.executable, "-c", "from torch._inductor.runtime.cache_dir_utils import cache_dir; print(cache_dir())"],
        env={name: value for name, value in os.environ.items() if name != INDUCTOR} | {"TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        text=True,
        check=True,
    )
    kernel = Path(default.stdout.strip()) / "kernel.so"
    kernel.write_bytes(b"compiled")
    assert left() == [kernel.parent.name]
    assert kernel.exists()
