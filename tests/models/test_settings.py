"""Preprocessing parameters from the files that checkpoints of several ages come with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tokcli.errors import ModelError
from tokcli.models.settings import read_preprocessing


def write(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_defaults_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil as Stills

    settings = read_preprocessing(tmp_path)
    image, video = settings.image, settings.video
    assert (image.bounds.min_pixels, image.bounds.max_pixels) == tuple(Stills.size.values())
    assert (video.bounds.min_pixels, video.bounds.max_pixels) == (128 * 28 * 28, 28 * 28 * 768)
    assert (image.patch_size, image.merge_size, image.temporal_patch_size) == (14, 2, 2)
    assert video.bounds.cap_pixels_per_frame is False
    assert list(image.mean) == list(OPENAI_CLIP_MEAN) and list(video.std) == list(OPENAI_CLIP_STD)
    assert video.resample == "bicubic" and video.rescale_factor == 1 / 255


def test_released_checkpoints_have_one_file_for_both(tmp_path: Path) -> None:
    """Qwen2.5-VL as published: bounds beside, not inside `size`, and no file for video."""
    stills = {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2}
    settings = read_preprocessing(write(tmp_path, preprocessor_config=stills))
    for bounds in (settings.image.bounds, settings.video.bounds):
        assert (bounds.min_pixels, bounds.max_pixels) == (3136, 12845056)


def test_bounds_inside_size_by_either_name(tmp_path: Path) -> None:
    write(tmp_path, preprocessor_config={"size": {"min_pixels": 10_000, "max_pixels": 20_000}})
    write(tmp_path, video_preprocessor_config={"size": {"shortest_edge": 30_000, "longest_edge": 40_000}})
    settings = read_preprocessing(tmp_path)
    assert (settings.image.bounds.min_pixels, settings.image.bounds.max_pixels) == (10_000, 20_000)
    assert (settings.video.bounds.min_pixels, settings.video.bounds.max_pixels) == (30_000, 40_000)


def test_nested_sections_win(tmp_path: Path) -> None:
    nested = {"video_processor": {"max_pixels": 50_000, "cap_pixels_per_frame": True, "max_video_tokens": 9000}}
    write(tmp_path, processor_config=nested, preprocessor_config={"max_pixels": 60_000})
    write(tmp_path, video_preprocessor_config={"max_pixels": 70_000})
    settings = read_preprocessing(tmp_path)
    assert settings.image.bounds.max_pixels == 60_000
    assert settings.video.bounds.max_pixels == 50_000
    assert settings.video.bounds.cap_pixels_per_frame and settings.video.bounds.max_video_tokens == 9000
    assert settings.sizer.video == settings.video.bounds


def test_json_round_trip(tmp_path: Path) -> None:
    stored = read_preprocessing(tmp_path).to_json()
    assert json.loads(json.dumps(stored)) == stored and stored["backend"] == "torch"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"do_resize": False}, "the image processor sets do_resize=false, which tokcli can't reproduce"),
        ({"resample": 0}, r"processor sets resample=0, allowed are 1 \(lanczos\), 2 \(bilinear\) and 3 \(bicubic\)"),
        ({"patch_size": "large"}, "the image processor's configuration is malformed"),
        ({"size": 3}, "the image processor's configuration is malformed"),
        ([1], "must hold a JSON object, got list"),
    ],
)
def test_what_cannot_be_done_is_an_error(config: Any, message: str, tmp_path: Path) -> None:
    write(tmp_path, preprocessor_config=config)
    with pytest.raises(ModelError, match=message):
        read_preprocessing(tmp_path)


def test_stills_and_video_must_agree_on_patches(tmp_path: Path) -> None:
    write(tmp_path, preprocessor_config={"patch_size": 14}, video_preprocessor_config={"patch_size": 16})
    with pytest.raises(ModelError, match="patch_size is 14 for images and 16 for video; they must be equal"):
        read_preprocessing(tmp_path)


def test_broken_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"preprocessor_config.json cannot be read as JSON"):
        read_preprocessing(tmp_path)
