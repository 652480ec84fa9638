"""Damaged videos: refused, kept in part with the damage counted, or the end of the run, as was asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tokcli.cache import open_cache, verify_cache
from tokcli.checking import check
from tokcli.errors import RecipeError, TokcliError
from tokcli.media import write_video
from tokcli.pipeline.compress import compress
from tokcli.pipeline.derive import derive
from tokcli.pipeline.progress import CompressSummary, Silent
from tokcli.pipeline.restore import DAMAGE
from tokcli.recipe import CompressRecipe, DeriveRecipe

SECONDS, FPS = 20, 5


class Warnings(Silent):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, item_id: str, message: str) -> None:
        self.warnings.append(message)


def run(folder: Path, cache: Path, **how: Any) -> tuple[CompressSummary, list[str]]:
    seen = Warnings()
    recipe = CompressRecipe(inputs=[str(folder)], output=str(cache), workers=1, **{"method": "none", **how})
    return compress(recipe, seen), seen.warnings


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (64, 96, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds of noise, every packet about as large, a key frame every five, the index in front."""
    path = tmp_path_factory.mktemp("sound") / "a.mp4"
    frames = (noise(number) for number in range(SECONDS * FPS))
    options = {"g": str(5 * FPS), "bf": "0", "sc_threshold": "0"}
    write_video(path, frames, FPS, options=options, container_options={"movflags": "faststart"})
    return path


def folder_with(tmp_path: Path, name: str, content: bytes, *others: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / name).write_bytes(content)
    for other in others:
        shutil.copy(other, folder / f"sound-{other.name}")
    return folder


def cut(sound: Path, share: float) -> bytes:
    data = sound.read_bytes()
    return data[: int(len(data) * share)]


def counts(cache: Path, name: str) -> list[int]:
    opened = open_cache(cache)
    stats = opened[next(item_id for item_id in opened.ids() if item_id.endswith(name))].kept.stats
    return [int(stats[key][0]) for key in DAMAGE]


def test_half_a_video_is_not_taken_for_a_whole_one(sound: Path, tmp_path: Path) -> None:
    folder, cache = folder_with(tmp_path, "cut.mp4", cut(sound, 0.5), sound), tmp_path / "cache"
    summary, _ = run(folder, cache)
    assert (summary.done, summary.failed) == (1, 1)
    (row,) = open_cache(cache).errors().to_pylist()
    assert (row["stage"], row["error_class"]) == ("decode", "Damaged")
    assert "of 20 planned frames decoded" in row["message"] and "--on-error salvage" in row["message"]
    # The same answer without trying; with salvage half is too little, until one says that it is enough.
    assert run(folder, cache)[0].failed == 1
    assert run(folder, cache, on_error="salvage", retry_errors=True)[0].failed == 1
    (row,) = open_cache(cache).errors().to_pylist()
    assert "less than --min-decoded 0.9" in row["message"]
    summary, warnings = run(folder, cache, on_error="salvage", min_decoded=0.4, retry_errors=True)
    assert (summary.done, summary.skipped, summary.failed) == (1, 1, 0)
    planned, decoded, _ = counts(cache, "cut.mp4")
    assert planned == SECONDS
    assert 9 <= decoded <= 11
    assert any("the file is cut: 50.0% of its bytes are missing" in warning for warning in warnings)
    assert verify_cache(cache) == []


def test_salvage_keeps_nearly_whole_videos_and_counts_what_is_lost(sound: Path, tmp_path: Path) -> None:
    folder, cache = folder_with(tmp_path, "cut.mp4", cut(sound, 0.95)), tmp_path / "cache"
    assert run(folder, cache)[0].failed == 1
    summary, warnings = run(folder, cache, on_error="salvage", retry_errors=True)
    assert (summary.done, summary.failed) == (1, 0)
    planned, decoded, doubtful = counts(cache, "cut.mp4")
    assert planned == SECONDS and 18 <= decoded < SECONDS and doubtful <= 1
    assert any("planned frames decoded" in warning for warning in warnings)
    # What is derived from it says so too; a sound item says nothing.
    derive(DeriveRecipe(cache=str(cache), output=str(tmp_path / "small"), method="uniform", keep=0.5))
    assert counts(tmp_path / "small", "cut.mp4") == [planned, decoded, doubtful]


def test_damage_that_touches_no_planned_frame_is_only_counted(sound: Path, tmp_path: Path) -> None:
    data = bytearray(sound.read_bytes())
    data[-40:] = bytes(40)  # in the very last frame, which 1 fps does not take
    folder, cache = folder_with(tmp_path, "end.mp4", bytes(data)), tmp_path / "cache"
    summary, _ = run(folder, cache)
    assert (summary.done, summary.failed) == (1, 0)
    opened = open_cache(cache)
    assert not set(DAMAGE) & set(opened[next(iter(opened.ids()))].kept.stats)


def test_damage_in_the_middle_makes_what_follows_doubtful(sound: Path, tmp_path: Path) -> None:
    data = bytearray(sound.read_bytes())
    middle = len(data) * 55 // 100  # a second behind a key frame
    data[middle : middle + 3000] = bytes(3000)
    folder, cache = folder_with(tmp_path, "hole.mp4", bytes(data)), tmp_path / "cache"
    every = {"sampling": {"fps": float(FPS)}}
    (row,) = _errors(run(folder, cache, **every), cache)
    assert row["error_class"] == "Damaged"
    assert "doubtful" in row["message"]
    assert "[h264]" in row["log_tail"], "what the decoder said about it"
    summary, _ = run(folder, cache, on_error="salvage", retry_errors=True, **every)
    assert summary.failed == 0
    planned, decoded, doubtful = counts(cache, "hole.mp4")
    assert planned == SECONDS * FPS
    assert planned - 5 <= decoded < planned
    assert 0 < doubtful <= 5 * FPS, "the next key frame makes an end of it"


def _errors(result: tuple[CompressSummary, list[str]], cache: Path) -> list[dict[str, Any]]:
    assert result[0].failed == 1
    rows: list[dict[str, Any]] = open_cache(cache).errors().to_pylist()
    return rows


def test_fail_stops_at_damage(sound: Path, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "cut.mp4", cut(sound, 0.5))
    with pytest.raises(TokcliError, match=r"cut\.mp4.*--on-error fail"):
        run(folder, tmp_path / "cache", on_error="fail")


def test_min_decoded_is_for_salvage() -> None:
    with pytest.raises(RecipeError, match="min_decoded is for on_error salvage"):
        check(CompressRecipe, {"inputs": ["x"], "output": "y", "min_decoded": 0.5}, "compress")


def test_a_run_in_which_too_much_fails_stops_and_goes_on_later(tmp_path: Path) -> None:
    folder, cache = tmp_path / "media", tmp_path / "cache"
    folder.mkdir()
    for number in range(40):
        Image.fromarray(noise(number)).save(folder / f"good{number:02}.png")
    for number in range(20):  # smaller, so they come last
        (folder / f"bad{number:02}.mp4").write_bytes(b"\0" * 100)
    with pytest.raises(TokcliError, match=r"\d+ of \d+ items failed, over --max-error-rate 0\.1; the last: .*goes on"):
        run(folder, cache, max_error_rate=0.1)
    counted = open_cache(cache).stats()
    assert counted["items"] == 40
    assert 50 <= counted["items"] + counted["failed"] < 60, "not before 50 items, and then at once"
    # The next run counts its own failures: the rest is fewer than 50 items.
    summary, _ = run(folder, cache, max_error_rate=0.1)
    assert (summary.done, summary.skipped, summary.failed) == (0, 40, 20)
    assert (cache / "_SUCCESS").exists()


def test_retrying_touches_failed_items_only(clips: Path, tmp_path: Path) -> None:
    folder, cache, small = tmp_path / "media", tmp_path / "cache", tmp_path / "small"
    shutil.copytree(clips, folder)
    (folder / "bad.mp4").write_bytes(b"\0" * 100)
    run(folder, cache)
    shards = sorted((cache / "data").iterdir())
    summary, _ = run(folder, cache, retry_errors=True)
    assert (summary.done, summary.skipped, summary.failed) == (0, 6, 1)
    assert sorted((cache / "data").iterdir()) == shards
    for retry in (False, True):
        recipe = DeriveRecipe(cache=str(cache), output=str(small), method="uniform", keep=0.5, retry_errors=retry)
        derived = derive(recipe)
        assert (derived.done, derived.skipped, derived.failed) == ((6, 0, 1) if not retry else (0, 6, 1))
