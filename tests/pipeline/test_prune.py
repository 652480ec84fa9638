"""Inputs that go: named after a run, dropped when asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tokcli.cache import open_cache, verify_cache
from tokcli.errors import UsageError
from tokcli.pipeline.compress import compress
from tokcli.pipeline.progress import CompressSummary
from tokcli.recipe import CompressRecipe


@pytest.fixture
def folder(copied: Callable[..., Path], tmp_path: Path) -> Path:
    """Three clips, the last of them in a folder of its own, and a file that is none."""
    folder = copied(tmp_path / "media", 3, bad=True)
    last = max(folder.iterdir())
    (folder / "sub").mkdir()
    last.rename(folder / "sub" / last.name)
    return folder


def run(folder: Path, **changes: object) -> CompressSummary:
    cache = folder.parent / "cache"
    values = {"inputs": [str(folder)], "output": str(cache), "method": "evs", "keep": 0.5, "workers": 1}
    return compress(CompressRecipe(**values | changes))  # type: ignore[arg-type]


def test_removed_inputs_are_named_and_dropped_when_asked(folder: Path) -> None:
    cache, first = folder.parent / "cache", run(folder)
    assert (first.removed, first.pruned, first.done, first.failed) == ((), False, 3, 1)
    gone, stays, below = (path for path in open_cache(cache).ids())
    want = open_cache(cache)[stays].kept.tokens
    Path(gone).unlink()
    (folder / "bad.mp4").unlink()
    named = run(folder)
    assert (set(named.removed), named.pruned) == ({gone, str(folder / "bad.mp4")}, False)
    assert (named.items, named.done, named.skipped) == (2, 0, 2)
    assert gone in open_cache(cache)
    pruned = run(folder, prune=True)
    assert (set(pruned.removed), pruned.pruned) == (set(named.removed), True)
    opened = open_cache(cache)
    assert set(opened.ids()) == {stays, below} and len(opened.errors()) == 0
    assert torch.equal(opened[stays].kept.tokens, want)
    assert opened.complete and verify_cache(cache) == []
    again = run(folder, prune=True)
    assert (again.removed, again.pruned, again.skipped) == ((), False, 2)


def test_what_could_not_be_looked_at_is_not_taken_for_gone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    run(folder)
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    summary = run(folder, prune=True)
    assert (summary.removed, summary.pruned) == ((), False)
    assert len(open_cache(folder.parent / "cache")) == 3


def test_a_limit_says_nothing_of_what_is_gone(folder: Path) -> None:
    run(folder)
    assert run(folder, limit=1).removed == ()
    with pytest.raises(UsageError, match="--prune drops all that is not among the inputs, and --limit looks at some"):
        run(folder, limit=1, prune=True)


def test_every_cache_of_a_run_is_pruned(folder: Path) -> None:
    other = folder.parent / "other"
    run(folder, also=[f"uniform@16={other}"])
    next(folder.glob("*-00000.*")).unlink()
    summary = run(folder, also=[f"uniform@16={other}"], prune=True)
    assert summary.pruned and summary.also[0].pruned and summary.removed == summary.also[0].removed
    assert len(open_cache(other)) == 2
