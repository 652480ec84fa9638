"""Copying an object to this machine."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from tokcli.storage.fetch import Fetch, FetchStoppedError


def test_a_copy_that_nobody_wants_any_more_ends_as_such_and_leaves_nothing(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/stopped/object", bytes(1000))
    copy = Fetch("memory://stopped/object", tmp_path / "copy", 1000, lambda: True)
    with pytest.raises(FetchStoppedError):
        copy.run()
    assert copy.tries == 1 and not list(tmp_path.iterdir())
