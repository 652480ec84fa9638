"""Sizes given to the tower: equal to transformers' own arithmetic, within the bounds, and never more than asked for."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_checkpoints import make_info

from tokcli.errors import MediaError
from tokcli.models.sizing import PixelBounds, Sizer, shrink_grid, smart_resize

SIZER = Sizer(14, 2, 2, PixelBounds(56 * 56, 28 * 28 * 1280), PixelBounds(128 * 28 * 28, 28 * 28 * 768))


def test_sizes_by_hand() -> None:
    # 1080p, at most 768 tokens: beta = sqrt(1080 * 1920 / 602112) = 1.8557; floor(1080 / beta / 28) = 20.
    assert SIZER(make_info(width=1920, height=1080)) == (20 * 28, 36 * 28)
    # 100x100 grows to at least 128 tokens: ceil(100 * sqrt(100352 / 10000) / 28) = 12.
    assert SIZER(make_info(width=100, height=100)) == (12 * 28, 12 * 28)
    # A still of the same size is within its own bounds already: round(100 / 28) = 4.
    assert SIZER(make_info("image", width=100, height=100)) == (4 * 28, 4 * 28)
    # Python rounds halves to even: 70 / 28 = 2.5.
    assert smart_resize(70, 98, 28, 1, 10**9) == (56, 112)


def test_equal_to_transformers() -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as reference

    generator = random.Random(0)
    for _ in range(3000):
        height, width = (int(2 ** generator.uniform(2, 13)) for _ in range(2))
        low = generator.choice([56 * 56, 128 * 28 * 28])
        high = low * generator.choice([2, 6, 1000])
        if max(height, width) > 200 * min(height, width):
            continue
        assert smart_resize(height, width, 28, low, high) == reference(height, width, 28, low, high)


def test_a_clips_budget_is_shared_by_its_frames() -> None:
    capped = PixelBounds(128 * 28 * 28, 28 * 28 * 768, cap_pixels_per_frame=True)
    sizer = Sizer(14, 2, 2, SIZER.image, capped)
    few, many, most = (sizer(make_info(width=1920, height=1080, frames=n)) for n in (100, 700, 5000))
    assert few == SIZER(make_info(width=1920, height=1080))
    # 128000 * 0.9 tokens over 700 frames, two frames a step: 329 a frame; floor(1080 / 2.835 / 28) = 13.
    assert many == (13 * 28, 24 * 28)
    # Never below 1.05 of the smallest size: 134 tokens.
    assert most == (8 * 28, 15 * 28)


def test_narrow_frames_are_an_error_of_the_item() -> None:
    assert SIZER(make_info(width=2000, height=10))
    with pytest.raises(
        MediaError, match="frames of 2001x10 pixels are too narrow: the aspect ratio may be at most 200"
    ):
        SIZER(make_info(width=2001, height=10))


def test_grids() -> None:
    assert SIZER.grid(make_info(frames=7), (56, 84)) == (4, 2, 3)
    assert SIZER.grid(make_info(frames=8), (56, 84)) == (4, 2, 3)
    assert SIZER.grid(make_info(frames=1), (56, 84)) == (1, 2, 3)
    assert SIZER.grid(make_info("image"), (56, 84)) == (1, 2, 3)
    assert SIZER.patches_per_step(make_info(), (56, 84)) == 4 * 6


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.001, 1.0))
def test_a_share_of_the_grid_is_never_exceeded(rows: int, columns: int, share: float) -> None:
    height, width = shrink_grid(rows, columns, share)
    assert 1 <= height <= rows and 1 <= width <= columns
    assert height * width <= max(1, share * rows * columns + 1e-6)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.5, 0.75])
def test_a_share_keeps_shape_and_most_of_the_budget(share: float) -> None:
    info = make_info(width=1920, height=1080)
    height, width = SIZER(info, share)
    full = SIZER(info)
    assert 0.8 * share <= (height * width) / (full[0] * full[1]) <= share
    assert 0.7 < (width / height) / (full[1] / full[0]) < 1.4
    assert SIZER(info, 1.0) == full


def test_a_share_outside_of_0_to_1_is_refused() -> None:
    for scale in (0.0, 1.5):
        with pytest.raises(ValueError, match="scale must be in"):
            SIZER(make_info(), scale)


def test_travels_to_a_process_without_torch() -> None:
    code = (
        "import pickle, sys; sizer = pickle.load(sys.stdin.buffer); "
        "from tokcli.types import MediaInfo; "
        "print(sizer(MediaInfo('video', 640, 360, 8, 1.0, 8.0, 25.0, 'c', 'd'))); "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(SIZER), capture_output=True, check=True)
    assert done.stdout.decode().split("\n")[:2] == ["(364, 644)", "[]"]
