"""Pixels to patches, against arithmetic by index and Pillow's resampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from native_reference import patches_by_index
from PIL import Image

from tokcli.models.preprocess import pad_to_step, pixel_change, resize_frames, to_patches
from tokcli.models.settings import read_preprocessing


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_patches_are_cut_by_index(tmp_path: Path) -> None:
    settings = read_preprocessing(tmp_path).video
    frames = noise(4, 56, 84, 3)
    own = to_patches(torch.from_numpy(frames), settings)
    assert own.shape == (2 * 4 * 6, 3 * 2 * 14 * 14)
    assert torch.equal(own, patches_by_index(frames))


def test_a_single_value_by_hand(tmp_path: Path) -> None:
    settings = read_preprocessing(tmp_path).video
    frames = np.zeros((2, 28, 28, 3), dtype=np.uint8)
    frames[1, 15, 3, 2] = 200  # second frame, lower left patch, blue
    row = to_patches(torch.from_numpy(frames), settings)[2]
    place = 2 * (2 * 14 * 14) + 1 * (14 * 14) + 1 * 14 + 3
    assert float(row[place]) == pytest.approx((200 / 255 - settings.mean[2]) / settings.std[2], abs=1e-6)
    assert float(row[place + 1]) == pytest.approx(-settings.mean[2] / settings.std[2], abs=1e-6)


@pytest.mark.parametrize(("resample", "pillow"), [("bicubic", Image.BICUBIC), ("bilinear", Image.BILINEAR)])
def test_resizing_is_antialiased_like_pillow(resample: str, pillow: int) -> None:
    y, x = np.mgrid[0:180, 0:320]
    smooth = np.stack([128 + 90 * np.sin(x / 9), 128 + 80 * np.cos(y / 11), (x + y) % 256 * 0.9], -1).astype(np.uint8)
    own = resize_frames(smooth[None], (84, 140), resample)[0]
    reference = np.asarray(Image.fromarray(smooth).resize((140, 84), pillow))
    assert np.abs(own.astype(int) - reference).max() <= 2
    # Without antialiasing the two would be far apart.
    aliased = smooth[:: 180 // 84][:84, :: 320 // 140][:, :140]
    assert np.abs(aliased.astype(int) - reference).mean() > 5


def test_resizing_frame_by_frame_is_resizing_all() -> None:
    frames = noise(5, 90, 130, 3)
    whole = resize_frames(frames, (56, 84), "bicubic")
    assert whole.shape == (5, 56, 84, 3) and whole.dtype == np.uint8 and whole.flags["C_CONTIGUOUS"]
    parts = np.concatenate([resize_frames(frames[i : i + 1], (56, 84), "bicubic") for i in range(5)])
    assert np.array_equal(whole, parts)


def test_resizing_to_the_same_size_copies_nothing() -> None:
    frames = noise(2, 56, 84, 3)
    assert resize_frames(frames, (56, 84)) is frames


def test_memory_order_does_not_change_the_result() -> None:
    frames = noise(2, 3, 90, 130).transpose(0, 2, 3, 1)
    assert np.array_equal(resize_frames(frames, (56, 84)), resize_frames(np.ascontiguousarray(frames), (56, 84)))


def test_pixel_change_against_a_loop() -> None:
    frames = noise(6, 56, 84, 3)
    change = pixel_change(None, frames, 2, 28).reshape(3, 2, 3)
    assert np.isinf(change[0]).all()
    values = frames.astype(np.float64) / 255
    for step in (1, 2):
        for y in range(2):
            for x in range(3):
                square = (slice(28 * y, 28 * y + 28), slice(28 * x, 28 * x + 28))
                expected = np.abs(values[2 * (step - 1)][square] - values[2 * step + 1][square]).mean()
                assert change[step, y, x] == pytest.approx(expected, abs=1e-7)


def test_pixel_change_goes_on_from_the_run_before() -> None:
    frames = noise(6, 56, 84, 3)
    whole = pixel_change(None, frames, 2, 28)
    first = pixel_change(None, frames[:2], 2, 28)
    rest = pixel_change(frames[0], frames[2:], 2, 28)
    assert np.array_equal(whole, np.concatenate([first, rest]))


def test_equal_frames_have_no_change() -> None:
    frames = np.repeat(noise(1, 56, 84, 3), 4, axis=0)
    assert (pixel_change(None, frames, 2, 28).reshape(2, -1)[1] == 0).all()


def test_padding_repeats_the_last_frame() -> None:
    frames = noise(3, 2, 2, 3)
    assert np.array_equal(pad_to_step(frames, 2)[3], frames[2])
    assert pad_to_step(frames[:2], 2).base is frames
