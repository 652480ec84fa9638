"""The main job in one process: media to cache, resume, changed and broken files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tokcli.cache import open_cache, verify_cache
from tokcli.errors import CacheConflictError, MethodError, TokcliError
from tokcli.media import Limits, Sampling, open_media
from tokcli.models import load_tower
from tokcli.models.preprocess import resize_frames
from tokcli.pipeline.compress import compress
from tokcli.pipeline.preflight import load_job
from tokcli.pipeline.progress import CompressSummary, Silent
from tokcli.recipe import CompressRecipe


def run(inputs: Path | list[Path], cache: Path, **more: Any) -> CompressSummary:
    paths = inputs if isinstance(inputs, list) else [inputs]
    options = {"method": "none", "workers": 1, **more}
    return compress(CompressRecipe(inputs=[str(path) for path in paths], output=str(cache), **options))


def tokens_by_id(cache: Path) -> dict[str, torch.Tensor]:
    opened = open_cache(cache)
    return {Path(item_id).name: opened[item_id].kept.tokens.clone() for item_id in opened.ids()}


def assert_same(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def test_cached_tokens_are_those_of_the_tower_on_the_frames(clips: Path, clip_cache: Path) -> None:
    """Nothing between decoder and cache may change a token: decode and encode again by hand, whole clip at once."""
    tower = load_tower("nano")
    cache = open_cache(clip_cache)
    for item_id in cache.ids():
        item = cache[item_id]
        with open_media(item_id, sampling=Sampling(fps=1.0), limits=Limits(), decoder="pyav") as reader:
            frames = list(reader.chunks(1000))
            info = reader.info
        pixels = np.concatenate([part.pixels for part in frames])
        size = tower.sizer(info)
        encoding = tower.start(info, size, frozenset())
        visual = encoding.push(resize_frames(pixels, size, tower.sizer.resample))
        assert torch.equal(item.kept.tokens, visual.tokens)
        assert torch.equal(item.kept.coords, visual.coords)
        assert np.array_equal(item.times, np.concatenate([part.times for part in frames]))
        assert item.source_tokens == len(visual) == len(item.kept)
        assert item.frame_size == size


def test_a_second_run_does_nothing(clips: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = run(clips, cache)
    before = {path: path.stat().st_mtime_ns for path in (cache / "data").iterdir()}
    second = run(clips, cache)
    assert (first.done, first.skipped) == (6, 0)
    assert (second.done, second.skipped) == (0, 6)
    assert {path: path.stat().st_mtime_ns for path in (cache / "data").iterdir()} == before
    same = ("items", "source_tokens", "kept_tokens", "source_bytes", "cache_bytes", "media_seconds")
    assert all(getattr(first, name) == getattr(second, name) for name in same)
    assert (cache / "_SUCCESS").exists()
    assert (second.others, run(clips, cache, limit=2).others) == (0, 4)


def test_new_changed_and_touched_files(copied: Callable[..., Path], clip_files: list[Path], tmp_path: Path) -> None:
    folder, cache, names = copied(tmp_path / "media", 3), tmp_path / "cache", clip_files
    run(folder, cache)
    old = tokens_by_id(cache)
    shutil.copy(names[3], folder)  # new
    suffix = names[0].suffix
    other = next(path for path in names[1:] if path.suffix == suffix)
    shutil.copy(other, folder / names[0].name)  # changed
    (folder / names[1].name).touch()  # only touched
    summary = run(folder, cache)
    assert (summary.items, summary.done, summary.skipped, summary.failed) == (4, 2, 2, 0)
    new = tokens_by_id(cache)
    assert set(new) == {path.name for path in names[:4]}
    assert torch.equal(new[names[1].name], old[names[1].name])
    assert not torch.equal(new[names[0].name], old[names[0].name])
    assert verify_cache(cache) == []


def test_bad_files_cost_nothing_else(clips: Path, tmp_path: Path) -> None:
    folder, cache = tmp_path / "media", tmp_path / "cache"
    shutil.copytree(clips, folder)
    good = next(folder.glob("*.mp4"))
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "page.jpg").write_text("<html>404 not found</html>")
    (folder / "cut.mp4").write_bytes(good.read_bytes()[:300])
    summary = run(folder, cache)
    assert (summary.items, summary.done, summary.failed) == (9, 6, 3)
    errors = {Path(row["id"]).name: row for row in open_cache(cache).errors().to_pylist()}
    assert set(errors) == {"empty.mp4", "page.jpg", "cut.mp4"}
    assert all(row["message"] and "\n" not in row["message"] for row in errors.values())
    assert_same(tokens_by_id(cache), tokens_by_id_of(clips, tmp_path / "alone"))
    again = run(folder, cache)
    assert (again.done, again.skipped, again.failed) == (0, 6, 3), "what failed is not tried again by itself"
    (folder / "empty.mp4").write_bytes(good.read_bytes())
    mended = run(folder, cache)
    assert (mended.done, mended.failed) == (1, 2), "a file that was mended is new"
    assert len(open_cache(cache).errors()) == 2


def tokens_by_id_of(clips: Path, cache: Path) -> dict[str, torch.Tensor]:
    run(clips, cache)
    return tokens_by_id(cache)


def test_on_error_fail_stops_and_keeps_what_is_done(clips: Path, tmp_path: Path) -> None:
    folder, cache = tmp_path / "media", tmp_path / "cache"
    shutil.copytree(clips, folder)
    (folder / "zz.mp4").write_bytes(b"x")  # smallest, so it comes last
    with pytest.raises(TokcliError, match=r"zz\.mp4.*--on-error fail"):
        run(folder, cache, on_error="fail")
    assert len(open_cache(cache)) == 6


def test_another_configuration_is_refused_with_the_difference(clips: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(clips, cache, method="dtd", threshold=0.5)
    with pytest.raises(CacheConflictError, match=r"threshold: 0\.5 in the cache, 0\.3 asked for"):
        run(clips, cache, method="dtd", threshold=0.3)
    summary = run(clips, cache, method="dtd", threshold=0.3, overwrite=True)
    assert summary.done == 6


@pytest.mark.parametrize("method", ["dtd", "evs", "uniform", "random", "pool2d", "downsample"])
def test_methods_keep_their_budget_on_real_clips(clips: Path, tmp_path: Path, method: str) -> None:
    summary = run(clips, tmp_path / "cache", method=method, keep=0.5)
    assert summary.failed == 0
    assert summary.kept_tokens < summary.source_tokens
    cache = open_cache(tmp_path / "cache")
    for item_id in cache.ids():
        item = cache[item_id]
        assert len(item.kept) <= 0.75 * item.source_tokens + 1
        assert int(item.kept.source.max()) < item.source_tokens
    assert verify_cache(tmp_path / "cache") == []


def test_streaming_equals_whole_item(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same clips in chunks of one step and of eight give the same cache."""
    run(clips, tmp_path / "eight", method="dtd")
    monkeypatch.setattr("tokcli.pipeline.compress.load_job", lambda request: _one_step(load_job(request)))
    run(clips, tmp_path / "one", method="dtd")
    assert_same(tokens_by_id(tmp_path / "eight"), tokens_by_id(tmp_path / "one"))


def _one_step(job: Any) -> Any:
    return replace(job, decode=replace(job.decode, max_steps=1))


def test_dtd_stores_its_timeline(clips: Path, tmp_path: Path) -> None:
    run(clips, tmp_path / "cache", method="dtd")
    cache = open_cache(tmp_path / "cache")
    item = cache[next(iter(cache.ids()))]
    steps = item.views[0].grid[0]
    assert item.kept.stats["drop_ratio"].shape == (steps - 1,)
    per_step = np.bincount(item.kept.coords[:, 1].numpy(), minlength=steps)
    area = item.views[0].grid[1] * item.views[0].grid[2]
    assert np.allclose(item.kept.stats["drop_ratio"], 1 - per_step[1:] / area)
    triggers = item.kept.stats["trigger_seconds"]
    assert len(triggers) <= -(-(steps - 1) // 10)
    assert set(triggers) <= {2.0 * step for step in range(1, steps)}, "seconds of steps, two apart at 1 fps"


def test_bad_budgets_are_refused_before_anything_is_written(clips: Path, tmp_path: Path) -> None:
    for options in ({"keep": 0.0}, {"keep": 2.0}, {"max_tokens": 0}, {"method": "dtdd"}):
        with pytest.raises(MethodError):
            run(clips, tmp_path / "cache", **{"method": "evs", **options})
    assert not (tmp_path / "cache").exists()


def test_observer_sees_every_failure_and_every_token(clips: Path, tmp_path: Path) -> None:
    class Seen(Silent):
        def __init__(self) -> None:
            self.kept, self.failures = 0, []

        def update(self, progress: Any) -> None:
            self.kept = progress.kept_tokens

        def failure(self, item_id: str, stage: str, message: str) -> None:
            self.failures.append((Path(item_id).name, stage))

    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"nothing")
    seen = Seen()
    recipe = CompressRecipe(inputs=[str(clips), str(bad)], output=str(tmp_path / "cache"), method="none", workers=1)
    summary = compress(recipe, seen)
    assert seen.kept == summary.kept_tokens > 0
    assert seen.failures == [("bad.mp4", "open")]
