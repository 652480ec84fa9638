"""A cache that has none of the inputs: said before work begins, for they may be in it under other ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokcli.cache import open_cache
from tokcli.pipeline.compress import compress
from tokcli.pipeline.progress import Progress, Silent
from tokcli.recipe import CompressRecipe


class Noting(Silent):
    """Keeps what is said before work begins."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def begin(self, progress: Progress, notes: list[str]) -> None:
        assert progress.done == 0
        self.notes = notes


@pytest.fixture
def media(copied: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two clips in a folder; the working directory is the one above."""
    monkeypatch.chdir(tmp_path)
    return copied(tmp_path / "media", 2)


def warned(inputs: list[str], **changes: Any) -> list[str]:
    """What a run says of a cache that has none of its inputs."""
    observer = Noting()
    values = {"inputs": inputs, "output": "cache", "method": "uniform", "keep": 0.5, "workers": 1}
    compress(CompressRecipe(**values | changes), observer)
    return [text for text in observer.notes if "none of these inputs" in text]


def test_another_spelling_of_the_same_paths_is_said_before_work_begins(media: Path) -> None:
    assert warned([str(media)]) == []
    assert warned([str(media)]) == []
    first = min(media.iterdir()).name
    (text,) = warned(["media"])
    assert text == (
        f"cache has 2 items and none of these inputs (it has {media / first}, this run media/{first}): all are encoded "
        "and stored, beside those that it has. If they are the same files, stop now and write their paths as they "
        "were written then"
    )
    assert len(open_cache("cache")) == 4
    assert warned(["media"]) == [] and warned([str(media)]) == []


def test_what_prune_will_do_is_said(media: Path) -> None:
    warned([str(media)])
    (text,) = warned(["media"], prune=True)
    assert "all are encoded and stored, then --prune drops those that it has." in text
    assert len(open_cache("cache")) == 2


def test_a_single_shared_input_is_enough(media: Path, clip_files: list[Path]) -> None:
    warned([str(media)])
    assert warned(["media", str(min(media.iterdir()))]) == []


def test_more_inputs_are_added_without_a_word_unless_all_others_go(media: Path) -> None:
    first, second = sorted(media.iterdir())
    warned([str(first)])
    assert warned([str(second)]) == []
    (text,) = warned([str(first.rename(media / f"other{first.suffix}"))], prune=True)
    assert "then --prune drops those that it has" in text


def test_inputs_that_cannot_be_opened_share_nothing(media: Path) -> None:
    warned([str(media)])
    Path("broken").mkdir()
    (Path("broken") / min(media.iterdir()).name).write_bytes(b"nothing")
    assert len(warned(["broken"])) == 1


def test_a_cache_that_is_begun_anew_has_nothing_to_share(media: Path) -> None:
    warned([str(media)])
    assert warned(["media"], overwrite=True) == []


def test_each_cache_of_a_run_speaks_for_itself(media: Path) -> None:
    warned([str(media)])
    (text,) = warned(["media"], output="other", also=["uniform@0.5=cache"])
    assert text.startswith("cache has 2 items")
