"""Runs that find nothing to do: no weights are read and no decoder starts, and all else is as in any other run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tokcli.cache import open_cache
from tokcli.cache.lock import CacheLockedError, lock_cache
from tokcli.errors import CacheConflictError, IntegrityError, UsageError
from tokcli.pipeline.compress import compress
from tokcli.pipeline.progress import CompressSummary, Progress, Silent
from tokcli.recipe import CompressRecipe


class Told(Silent):
    """What a run says."""

    def __init__(self) -> None:
        self.words: list[object] = []

    def begin(self, progress: Progress, notes: list[str]) -> None:
        self.words.append((progress.items, progress.skipped, progress.failed, notes))

    def failure(self, item_id: str, stage: str, message: str) -> None:
        self.words.append((item_id, stage, message))


class Starts:
    """How often a half of a model was loaded, and a decoder process started."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.loads = self.decoders = 0
        self._count(patch, "tokcli.models.tower.load_half", "loads")
        self._count(patch, "tokcli.pipeline.decoder.start_process", "decoders")

    def _count(self, patch: pytest.MonkeyPatch, place: str, name: str) -> None:
        module, _, function = place.rpartition(".")
        original = getattr(__import__(module, fromlist=[function]), function)

        def counted(*arguments: Any, **named: Any) -> Any:
            setattr(self, name, getattr(self, name) + 1)
            return original(*arguments, **named)

        patch.setattr(place, counted)

    def take(self) -> tuple[int, int]:
        """Loads and decoders since the last look."""
        seen = self.loads, self.decoders
        self.loads = self.decoders = 0
        return seen


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    return Starts(monkeypatch)


@pytest.fixture
def media(clips: Path, tmp_path: Path) -> Path:
    """Three clips and a file that is none."""
    folder = tmp_path / "media"
    folder.mkdir()
    for path in sorted(path for path in clips.iterdir() if path.suffix != ".jsonl")[:3]:
        shutil.copy2(path, folder)
    (folder / "bad.mp4").write_bytes(b"nothing")
    return folder


def run(media: Path, observer: Told | None = None, **changes: Any) -> CompressSummary:
    values = {"inputs": [str(media)], "output": str(media.parent / "cache"), "method": "evs", "keep": 0.5, "workers": 1}
    return compress(CompressRecipe(**{**values, **changes}), observer)


def remove_a_clip(media: Path) -> None:
    next(media.glob("static*")).unlink()


def remove_the_mark(media: Path) -> None:
    (media.parent / "cache" / "_SUCCESS").unlink()


def nothing(media: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "options"),
    [
        pytest.param(nothing, {}, id="again"),
        pytest.param(remove_the_mark, {}, id="killed-before-the-mark"),
        pytest.param(remove_a_clip, {}, id="an-input-gone"),
        pytest.param(remove_a_clip, {"prune": True}, id="prune"),
        pytest.param(nothing, {"limit": 2}, id="limit"),
        pytest.param(nothing, {"also": True}, id="also"),
        pytest.param(nothing, {"shard": "1/2"}, id="part"),
        pytest.param(nothing, {"inputs": "missing"}, id="an-input-that-never-was"),
    ],
)
def test_nothing_is_loaded_and_the_run_ends_as_any(
    media: Path,
    starts: Starts,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    options: dict[str, Any],
) -> None:
    if "also" in options:
        options = {"also": [f"uniform@0.2={media.parent / 'second'}"]}
    if "inputs" in options:
        listing = media.parent / "list.csv"
        paths = [*sorted(media.iterdir()), media / "never.mp4"]
        listing.write_text("path\n" + "".join(f"{path}\n" for path in paths))
        options = {"inputs": [str(listing)]}
    kept = {name: value for name, value in options.items() if name not in ("prune", "limit")}
    run(media, **kept)
    assert starts.take()[0] == 1
    change(media)
    shutil.copytree(media.parent / "cache", media.parent / "before")
    quick, said = run(media, told := Told(), **options), told.words
    assert starts.take() == (0, 0)
    assert quick.done == 0 and (open_cache(media.parent / "cache").complete or quick.shard is not None)

    shutil.rmtree(media.parent / "cache")
    shutil.move(media.parent / "before", media.parent / "cache")
    monkeypatch.setattr("tokcli.pipeline.compress.settled_targets", lambda request: None)
    usual = run(media, told := Told(), **options)
    assert starts.take()[0] == 1
    assert told.words == said
    assert asdict(quick) | {"seconds": 0, "also": 0} == asdict(usual) | {"seconds": 0, "also": 0}
    assert [asdict(one) | {"seconds": 0} for one in quick.also] == [asdict(one) | {"seconds": 0} for one in usual.also]


def test_what_is_left_to_do_is_done(clips: Path, media: Path, starts: Starts) -> None:
    run(media)
    starts.take()
    new = sorted(path for path in clips.iterdir() if path.suffix != ".jsonl")[3]
    shutil.copy2(new, media)
    assert run(media).done == 1 and starts.take() == (1, 1)
    assert run(media, retry_errors=True).failed == 1 and starts.take()[0] == 1
    assert run(media, overwrite=True).done == 4 and starts.take()[0] == 1
    assert run(media, also=[f"uniform@0.2={media.parent / 'second'}"]).also[0].done == 4 and starts.take()[0] == 1
    (media / new.name).write_bytes((media / new.name).read_bytes() + b"0")
    assert run(media).done == 1 and starts.take()[0] == 1


def test_what_changes_between_the_look_and_the_lock_is_seen(
    media: Path, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may take items away, as `repair` does, after this one saw that all are there."""
    from tokcli.pipeline import compress as module

    run(media)
    starts.take()
    look = module.settled_targets

    def then_lose_a_shard(request: Any) -> Any:
        found = look(request)
        for shard in (media.parent / "cache" / "data").iterdir():
            shard.unlink()
        return found

    monkeypatch.setattr(module, "settled_targets", then_lose_a_shard)
    told = Told()
    summary = run(media, told)
    assert (summary.done, summary.skipped, summary.failed) == (3, 0, 1) and starts.take() == (1, 1)
    assert len(told.words) == 1, "the run that was not one tells nothing"


@pytest.mark.parametrize("options", [{"keep": 0.25}, {"method": "uniform"}, {"dtype": "bfloat16"}, {"seed": 1}])
def test_another_configuration_is_refused_as_ever(
    media: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    run(media, dtype="float32")
    with pytest.raises(CacheConflictError) as refused:
        run(media, **{"dtype": "float32", **options})
    assert open_cache(media.parent / "cache").complete, "a refusal takes nothing away"
    monkeypatch.setattr("tokcli.pipeline.compress.settled_targets", lambda request: None)
    with pytest.raises(CacheConflictError) as usual:
        run(media, **{"dtype": "float32", **options})
    assert str(refused.value) == str(usual.value) and "another configuration" in str(usual.value)


def test_all_caches_are_compared_before_any_is_opened(media: Path) -> None:
    """Opening takes away the mark of being complete."""
    second = media.parent / "second"
    run(media, also=[f"uniform@0.2={second}"])
    with pytest.raises(CacheConflictError, match=str(second)):
        run(media, also=[f"uniform@0.3={second}"])
    with pytest.raises(UsageError, match="stands twice"):
        run(media, also=[f"evs@0.5={media.parent / 'cache'}"])
    assert open_cache(media.parent / "cache").complete and open_cache(second).complete


def test_other_weights_are_refused_without_being_loaded(media: Path, tmp_path: Path) -> None:
    """The fingerprint is of the bytes in the checkpoint's files, so it needs no tower."""
    from tokcli.models import resolve_checkpoint

    model = tmp_path / "model"
    shutil.copytree(resolve_checkpoint("nano"), model)
    run(media, model=str(model))
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    content[start:] = bytes(byte ^ 1 for byte in content[start:])
    weights.write_bytes(content)
    with pytest.raises(CacheConflictError, match="fingerprint"):
        run(media, model=str(model))


def test_a_cache_that_is_locked_or_damaged_is_told_of(media: Path) -> None:
    cache = media.parent / "cache"
    run(media)
    lock = lock_cache(cache)
    with pytest.raises(CacheLockedError):
        run(media)
    lock.release()
    (shard,) = (cache / "data").iterdir()
    os.truncate(shard, shard.stat().st_size // 2)
    with pytest.raises(IntegrityError):
        run(media)
