"""Folders for temporary files, made while other processes look for those that were left behind."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout

from tokcli.storage.scratch import PREFIX, Scratch


@pytest.mark.parametrize("moment", ["before the lock", "during the lock"])
def test_a_folder_that_another_process_took_for_left_behind_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    acquire, taken = FileLock.acquire, []

    def acquire_late(self: FileLock, *arguments: Any, **named: Any) -> Any:
        if not taken:
            taken.append(Path(self.lock_file).parent)
            if moment == "during the lock":
                raise Timeout(self.lock_file)
            proxy = acquire(self, *arguments, **named)
            shutil.rmtree(taken[0])
            return proxy
        return acquire(self, *arguments, **named)

    monkeypatch.setattr(FileLock, "acquire", acquire_late)
    with Scratch() as scratch:
        assert scratch.path != taken[0]
        assert scratch.path.is_dir() and scratch.path.name.startswith(PREFIX)
        other = FileLock(scratch.path / ".lock", timeout=0)
        with pytest.raises(Timeout):
            acquire(other)
    assert not scratch.path.exists()
