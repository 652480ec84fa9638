"""Real files: every valid one compresses, every broken one has a row with a reason, nothing stops or hangs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tokcli.cache import open_cache, verify_cache
from tokcli.pipeline.compress import compress
from tokcli.pipeline.progress import CompressSummary
from tokcli.pipeline.restore import DAMAGE
from tokcli.recipe import CompressRecipe

pytestmark = [pytest.mark.media, pytest.mark.timeout(600)]
# Odd or damaged, but every frame that is taken at 1 fps is whole.
SOUND = {
    "decord__unordered.mov",
    "libavif__paris_icc_exif_xmp.png",
    "media__sample_with_invalid_nalu.mp4",
    "moviepy__no_duration.webm",
    "te[s]t_ video ' _ .flv",
    "torchcodec__discard_first_keyframe.mp4",
    "VideoLLaMA3__city1.jpg",
}


def run(folder: Path, cache: Path, **how: object) -> CompressSummary:
    return compress(CompressRecipe(inputs=[str(folder)], output=str(cache), method="dtd", **how))


@pytest.mark.parametrize("kind", ["video", "image"])
def test_every_valid_file_compresses(real_media: Path, tmp_path: Path, kind: str) -> None:
    summary = run(real_media / kind, tmp_path / "cache")
    cache = open_cache(tmp_path / "cache")
    failed = {Path(row["id"]).name: row["message"] for row in cache.errors().to_pylist()}
    if importlib.util.find_spec("pillow_heif") is None:
        message = failed.pop("metadata-extractor-images__cheers_1440x960.heic", "")
        assert kind == "video" or "tokcli[heif]" in message
    assert failed == {}
    files = [path for path in (real_media / kind).iterdir() if not path.name.startswith(".")]
    assert summary.items == len(files)
    for item in cache:
        assert 0 < len(item.kept) <= item.source_tokens
        assert item.source_bytes == Path(item.path).stat().st_size
    assert verify_cache(tmp_path / "cache") == []


def test_every_broken_file_has_a_reason(real_media: Path, tmp_path: Path) -> None:
    summary = run(real_media / "corrupt", tmp_path / "cache")
    cache = open_cache(tmp_path / "cache")
    errors = {Path(row["id"]).name: row for row in cache.errors().to_pylist()}
    files = {path.name for path in (real_media / "corrupt").iterdir() if not path.name.startswith(".")}
    assert {Path(item_id).name for item_id in cache.ids()} == SOUND
    assert set(errors) == files - SOUND
    assert summary.done + summary.failed == summary.items == len(files)
    for name, row in errors.items():
        assert row["stage"] in ("open", "decode"), name
        assert row["message"].strip() and "\n" not in row["message"]
    damaged = errors["decord__corrupted.mp4"]
    assert damaged["error_class"] == "Damaged"
    assert "4 of 5 planned frames decoded (80.0%), 1 of them doubtful, 1 bad packets" in damaged["message"]
    assert "[h264]" in damaged["log_tail"]
    again = run(real_media / "corrupt", tmp_path / "cache", on_error="salvage", min_decoded=0.8, retry_errors=True)
    assert (again.done, again.failed) == (1, summary.failed - 1)
    cache = open_cache(tmp_path / "cache")
    kept = cache[next(item_id for item_id in cache.ids() if item_id.endswith("decord__corrupted.mp4"))]
    assert (kept.bad_packets, kept.corrupt_frames) == (1, 1)
    assert [int(kept.kept.stats[name][0]) for name in DAMAGE] == [5, 4, 1]
