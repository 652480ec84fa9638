"""Stills to tiles and clips to sizes, against transformers' own processors.

These have two backends that differ by a few grey levels where they resize; only Pillow's can be had without
torchvision, whose kernel is the one that tokcli uses. So resized pixels are compared within that difference, and what
needs no resizing exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_checkpoints import MEAN, STD

from tokcli.models.cutting import anyres_tiles, canvas_tiles, split_tiles
from tokcli.models.preprocess import resize_frames, to_planes
from tokcli.models.settings import Settings
from tokcli.models.sizing import ClipBounds
from tokcli.models.tiles import AnyresTiling, CanvasTiling, SplitTiling, Tiling

SIDE = 56
PINPOINTS = tuple((rows * SIDE, columns * SIDE) for rows in range(1, 5) for columns in range(1, 5))
SHAPES = [(56, 56), (100, 150), (150, 90), (61, 60), (400, 90), (30, 200), (224, 224), (517, 333), (20, 21)]
GREY_LEVELS = 1
"""By which the two resize these pictures differently at most."""


def picture(height: int, width: int) -> np.ndarray:
    """Smooth, with an edge."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [128 + 90 * np.sin(x / 9), 128 + 80 * np.cos(y / 11), np.where(x > width / 3, 200, 40)]
    return np.stack(channels, -1).astype(np.uint8)[None]


def levels(tiles: np.ndarray, bounds: Tiling) -> torch.Tensor:
    settings = Settings(bounds, 14, 1, 1, tuple(MEAN), tuple(STD), 1 / 255, "bicubic")
    return to_planes(torch.from_numpy(tiles), settings)


def check(own: torch.Tensor, reference: Any, exact: bool) -> None:
    assert own.shape == reference.shape
    grey = (own - reference).abs() * (torch.tensor(STD) * 255)[:, None, None]
    assert float(grey.max()) <= (0 if exact else GREY_LEVELS) + 1e-4


@pytest.mark.parametrize("shape", SHAPES)
def test_anyres_tiles_are_those_of_transformers(shape: tuple[int, int]) -> None:
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    processor = LlavaOnevisionImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        image_mean=MEAN,
        image_std=STD,
        image_grid_pinpoints=[*map(list, PINPOINTS)],
    )
    still = picture(*shape)
    reference = processor(Image.fromarray(still[0]), return_tensors="pt")["pixel_values"][0]
    tiling = AnyresTiling(SIDE, PINPOINTS)
    own = levels(anyres_tiles(still, tiling, "bicubic"), tiling)
    check(own, reference, exact=shape == (SIDE, SIDE))
    if shape in PINPOINTS:
        check(own[1:], reference[1:], exact=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_canvas_tiles_are_those_of_transformers(shape: tuple[int, int]) -> None:
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    processor = GotOcr2ImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        image_mean=MEAN,
        image_std=STD,
        crop_to_patches=True,
        min_patches=1,
        max_patches=12,
    )
    still = picture(*shape)
    reference = processor(Image.fromarray(still[0]), return_tensors="pt")["pixel_values"]
    tiling = CanvasTiling(SIDE, 1, 12)
    check(levels(canvas_tiles(still, tiling, "bicubic"), tiling), reference, exact=shape == (SIDE, SIDE))


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("family", ["idefics3", "smolvlm"])
@pytest.mark.parametrize("shape", SHAPES)
def test_split_tiles_are_those_of_transformers(shape: tuple[int, int], family: str, split: bool) -> None:
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    make = Idefics3ImageProcessorPil if family == "idefics3" else SmolVLMImageProcessorPil
    processor = make(
        size={"longest_edge": 4 * SIDE},
        max_image_size={"longest_edge": SIDE},
        image_mean=MEAN,
        image_std=STD,
        do_image_splitting=split,
        do_pad=True,
    )
    still = picture(*shape)
    reference = processor(Image.fromarray(still[0]), return_tensors="pt", return_row_col_info=True)
    tiling = SplitTiling(SIDE, 4 * SIDE, split)
    rows, columns = tiling.grid(*shape)
    cut = rows * columns > 1
    assert (reference["rows"], reference["cols"]) == ([[rows * cut]], [[columns * cut]])
    own = levels(split_tiles(still, tiling, "lanczos"), tiling)
    grey = (own - reference["pixel_values"][0]).abs() * (torch.tensor(STD) * 255)[:, None, None]
    # Each of up to three resizes rounds.
    assert own.shape == reference["pixel_values"][0].shape
    assert float(grey.max()) <= 2 * GREY_LEVELS + 1e-4 and float(grey.mean()) < 0.05


@pytest.mark.parametrize("family", ["idefics3", "smolvlm"])
def test_splits_are_those_of_transformers(family: str) -> None:
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    make = Idefics3ImageProcessorPil if family == "idefics3" else SmolVLMImageProcessorPil
    generator = np.random.default_rng(0)
    for longest in (SIDE, 3 * SIDE - 5, 5 * SIDE):
        processor = make(size={"longest_edge": longest}, max_image_size={"longest_edge": SIDE})
        tiling = SplitTiling(SIDE, longest, split=True)
        for height, width in generator.integers(1, 900, (100, 2)).tolist():
            still = np.zeros((3, height, width), dtype=np.uint8)
            fitted = processor.resize(still, processor.size)
            assert tiling.fitted(height, width) == fitted.shape[1:]
            canvas = processor.resize_for_vision_encoder(fitted, SIDE)
            assert tuple(side * SIDE for side in tiling.grid(height, width)) == canvas.shape[1:]


@pytest.mark.parametrize("shape", SHAPES)
def test_squares_are_those_of_gemma_in_transformers(shape: tuple[int, int]) -> None:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    processor = Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_mean=MEAN, image_std=STD)
    still = picture(*shape)
    reference = processor(Image.fromarray(still[0]), return_tensors="pt")["pixel_values"]
    own = levels(resize_frames(still, (SIDE, SIDE), "bilinear"), SplitTiling(SIDE, SIDE, split=False))
    check(own, reference, exact=shape == (SIDE, SIDE))


@pytest.mark.parametrize("max_tiles", [1, 6, 12])
def test_canvases_are_those_of_transformers(max_tiles: int) -> None:
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    generator = np.random.default_rng(0)
    tiling = CanvasTiling(SIDE, 1, max_tiles)
    for height, width in generator.integers(1, 900, (300, 2)).tolist():
        columns, rows = get_optimal_tiled_canvas((height, width), (SIDE, SIDE), 1, max_tiles)
        assert tiling.grid(height, width) == (rows, columns)


def test_pinpoints_are_chosen_and_unpadded_as_in_transformers() -> None:
    from transformers.image_processing_utils import select_best_resolution
    from transformers.models.llava_next.modeling_llava_next import unpad_image

    generator = np.random.default_rng(0)
    tiling = AnyresTiling(SIDE, PINPOINTS)
    for height, width in generator.integers(1, 900, (300, 2)).tolist():
        canvas = select_best_resolution((height, width), PINPOINTS)
        assert tiling.canvas(height, width) == canvas
        tokens = torch.empty(1, canvas[0] // SIDE * 4, canvas[1] // SIDE * 4)
        assert tiling.unpadded(height, width, 4) == tuple(unpad_image(tokens, (height, width)).shape[1:])


@pytest.mark.parametrize("cap", [False, True])
def test_clips_are_sized_as_in_transformers(cap: bool) -> None:
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

    bounds = ClipBounds(4096 * 32, 32 * 32 * 768, cap_pixels_per_frame=cap, max_video_tokens=20)
    generator = np.random.default_rng(0)
    for frames, height, width in zip(
        generator.integers(2, 60, 200).tolist(), *generator.integers(10, 1400, (2, 200)).tolist()
    ):
        limit = bounds.max_pixels
        if cap:
            limit = max(min(20 * 32 * 32, limit // frames), int(bounds.min_pixels * 1.05)) * frames
        expected = smart_resize(frames, height, width, 2, factor=32, min_pixels=bounds.min_pixels, max_pixels=limit)
        assert bounds.resized(frames, height, width, 32) == expected
