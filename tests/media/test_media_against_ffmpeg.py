"""Frames are those of the ffmpeg program, pixel for pixel, where both convert by the same code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from media_clips import LIMITS, ffmpeg_frames, needs_ffmpeg, read, render

from tokcli.media import Sampling, open_media

pytestmark = needs_ffmpeg

EXACT = {
    "h264.mp4": {"codec": "h264", "options": {"g": "10", "bf": "3"}},
    "vp9.webm": {"codec": "vp9"},
    "odd.mkv": {"codec": "h264", "pixel_format": "yuv444p", "size": (97, 131)},
    "full_range.avi": {"codec": "mjpeg", "options": {"b": "8M"}},
    "uneven.mp4": {"codec": "h264", "times": [n * (n + 3) // 4 for n in range(50)]},
}

REAL_EXACT = [
    "torchcodec__nasa_13013.mp4",
    "torchcodec__nasa_13013_rotated.mp4",
    "torchcodec__test_non_zero_start.mp4",
    "media__bear-vp9-odd-dimensions.webm",
    "media__sample_rotate_and_reflect.mp4",
    "media__sample_with_increasing_timestamps_320w_240h_5s.mp4",
    "media__roadtrip-vp92-10bit.webm",
    "metadata-extractor-images__100_0306.AVI",
    "moviepy__chaplin.mp4",
    "learning-area__frog.webm",
    "terminalizer__install.gif",
]

REAL_NEAR = {
    "media__sample.avi": (0.01, "MPEG-4 part 2 leaves the inverse transform's rounding open"),
    "torchcodec__nasa_13013_hdr.mp4": (0.6, "swscale turns 10-bit BT.2020 into 8-bit RGB otherwise since FFmpeg 7"),
    "media__hdr10-av1.mp4": (0.2, "swscale turns 10-bit BT.2020 into 8-bit RGB otherwise since FFmpeg 7"),
}
"""Mean grey levels of difference allowed, and where they come from; the decoded YUV is the same."""


@pytest.mark.parametrize("name", EXACT)
def test_rendered_clips(tmp_path, name):
    path = render(tmp_path / name, **EXACT[name])
    got = read(path)
    assert np.array_equal(ffmpeg_frames(path, got.info), got.pixels)


@pytest.mark.parametrize("name", ["h264.mp4", "uneven.mp4"])
@pytest.mark.parametrize("fps", [1, 3])
def test_sampling_is_that_of_the_fps_filter(tmp_path, name, fps):
    """With round=up a frame is moved to the next tick, so each tick shows the last frame not after it."""
    path = render(tmp_path / name, **EXACT[name])
    got = read(path, Sampling(fps=fps))
    expected = ffmpeg_frames(path, got.info, f"fps={fps}:round=up:start_time=0")
    # The filter does not hold the last frame to its end.
    count = min(len(expected), len(got))
    assert count >= np.count_nonzero(got.indices < got.indices[-1])
    assert np.array_equal(expected[:count], got.pixels[:count])


def first_frames(path: Path, most: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """The first frames as tokcli and as ffmpeg decode them."""
    with open_media(str(path), sampling=Sampling(fps=None), limits=LIMITS) as reader:
        got = next(reader.chunks(most)).pixels
        return got, ffmpeg_frames(path, reader.info, most=most)


@pytest.mark.media
@pytest.mark.parametrize("name", REAL_EXACT)
def test_real_clips(real_media, name):
    got, expected = first_frames(real_media / "video" / name)
    assert np.array_equal(expected, got)


@pytest.mark.media
@pytest.mark.parametrize("name", REAL_NEAR)
def test_real_clips_that_round_otherwise(real_media, name):
    allowed, _ = REAL_NEAR[name]
    got, expected = first_frames(real_media / "video" / name)
    assert expected.shape == got.shape
    for one, other in zip(expected, got):
        assert np.abs(one.astype(np.int16) - other).mean() < allowed
