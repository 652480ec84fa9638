"""Signals that are made of pixels, against sums by hand and VFlowOpt's own code; its hubs, too."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from family_tiny import make_family
from tiles_tiny import INTERNVL, ONEVISION, PATCH, SIDE, TOKENS
from tiny_checkpoints import FACTOR, Halves, make_info, make_pixels

from tokcli import models
from tokcli.methods.none import SIGNAL_PREFIX, stored_signals
from tokcli.models.preprocess import neighbour_distance, patch_entropy
from tokcli.models.signals import attend, hub_attention

COMMITTED = Path(__file__).parents[1] / "golden"
CASES = sorted((Path(os.environ.get("TOKCLI_GOLDEN") or COMMITTED) / "vflowopt").glob("imp_*.npz"))


def smooth(count: int, height: int, width: int) -> np.ndarray:
    """Pictures of few levels, some of whose squares are of one colour."""
    levels = np.random.default_rng(0).integers(0, 5, (count, height, width, 3)) * 60
    levels[:, : height // 2] = 60
    return levels.astype(np.uint8)


@pytest.mark.parametrize("shape", [(2, 12, 20), (1, 4, 4), (1, 4, 12), (3, 8, 4)])
def test_distances_to_neighbours_are_sums_of_squares(shape: tuple[int, int, int]) -> None:
    factor = 4
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    found = neighbour_distance(pixels, factor)
    rows, columns = shape[1] // factor, shape[2] // factor
    assert found.shape == (shape[0] * rows * columns, 2, 3) and found.dtype == np.float32
    squares = [
        [
            [frame[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor] / 255 for x in range(columns)]
            for y in range(rows)
        ]
        for frame in pixels
    ]
    expected = [
        [
            ((squares[frame][y][x] - squares[frame][y + down][x + right]) ** 2).sum(axis=(0, 1))
            if y + down < rows and x + right < columns
            else [math.inf] * 3
            for down, right in ((0, 1), (1, 0))
        ]
        for frame in range(shape[0])
        for y in range(rows)
        for x in range(columns)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_entropy_is_that_of_the_grey_levels() -> None:
    factor = 6
    pixels = smooth(2, 20, 15)  # two rows and three columns of pixels are no square
    found = patch_entropy(pixels, factor).reshape(2, 3, 2)
    for frame, y, x in np.ndindex(found.shape):
        square = pixels[frame, y * factor : (y + 1) * factor, x * factor : (x + 1) * factor].reshape(-1, 3).tolist()
        shares = [count / factor**2 for count in Counter(round(0.3333 * sum(pixel)) for pixel in square).values()]
        assert found[frame, y, x] == pytest.approx(-sum(share * math.log2(share) for share in shares), abs=1e-6)
    assert found[0, 0, 0] == 0 and found.max() > 3


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_hubs_and_entropy_are_those_of_the_authors(path: Path) -> None:
    arrays = dict(np.load(path))
    threshold, share = float(arrays["t"]), float(arrays["alpha_v"])
    for number, attention in enumerate(torch.from_numpy(arrays["attn"])):
        places = attention.shape[1]
        # Queries whose products with these keys are the logarithms give these probabilities again.
        query, key = attention.log(), torch.eye(places).expand(len(attention), -1, -1)
        received = attend(query, key, 1.0)
        found = hub_attention(query, key, 1.0, received, threshold)
        expected = arrays["importance"][number]
        if np.isnan(expected).all():  # there is no hub
            assert torch.equal(found, received)
            continue
        if share:
            pixels = arrays["pixels01_u8"][number].transpose(1, 2, 0)[None]
            bits = patch_entropy(pixels, 14)
            np.testing.assert_allclose(bits, arrays["patch_entropy_bits"][number].ravel(), atol=1e-5)
            found = found + share * torch.softmax(torch.from_numpy(bits), dim=0)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_pixels_of_a_clip_in_runs(halves: Halves) -> None:
    info = make_info(frames=7)
    frames = make_pixels(info, halves.tower.sizer(info))
    wanted = frozenset({"neighbour_distance", "patch_entropy"})
    encoding = halves.tower.start(info, frames.shape[1:3], wanted)
    parts = [encoding.push(frames[first:last]).signals for first, last in ((0, 2), (2, 6), (6, 7))]
    for name, make in (("neighbour_distance", neighbour_distance), ("patch_entropy", patch_entropy)):
        found = torch.cat([part[name] for part in parts])
        assert np.array_equal(found, make(frames[::2], FACTOR)) and found.dtype == torch.float32


def test_pixels_of_llava_are_those_that_its_tower_is_given(llava: Halves) -> None:
    info = make_info(frames=2)
    frames = make_pixels(info, llava.tower.sizer(info))
    found = llava.tower.start(info, frames.shape[1:3], frozenset({"patch_entropy"})).push(frames)
    assert np.array_equal(found.signals["patch_entropy"], patch_entropy(frames, 14))


def test_entropy_follows_the_tokens_of_pictures(tmp_path: Path) -> None:
    wanted = frozenset({"patch_entropy"})
    info = make_info(frames=3)
    frames = smooth(3, SIDE, SIDE)
    joined = models.load_tower(str(make_family(tmp_path / "internvl", INTERNVL)), device="cpu")
    found = joined.start(info, (SIDE, SIDE), wanted).push(frames).signals["patch_entropy"]
    assert np.array_equal(found, patch_entropy(frames, 2 * PATCH))
    pooled = models.load_tower(str(make_family(tmp_path / "onevision", ONEVISION)), device="cpu")
    found = pooled.start(info, (SIDE, SIDE), wanted).push(frames).signals["patch_entropy"]
    by_patch = torch.from_numpy(patch_entropy(frames, PATCH)).view(3, TOKENS // 2, 2, TOKENS // 2, 2)
    torch.testing.assert_close(found, by_patch.mean(dim=(2, 4)).flatten())
    still = make_info("image", height=SIDE, width=2 * SIDE)
    picture = smooth(1, SIDE, 2 * SIDE)
    visual = pooled.start(still, (SIDE, 2 * SIDE), wanted).push(picture)
    rows = visual.signals["patch_entropy"][TOKENS**2 :].view(TOKENS, 2 * TOKENS + 1)
    assert np.array_equal(rows[:, :-1].flatten(), patch_entropy(picture, PATCH)) and not bool(rows[:, -1].any())


def test_a_cache_gives_distances_back_in_their_shape() -> None:
    values = np.arange(4 * 6, dtype=np.float32)
    stored = stored_signals({SIGNAL_PREFIX + "neighbour_distance": values, SIGNAL_PREFIX + "keys": values}, 4)
    assert np.array_equal(stored["neighbour_distance"], values.reshape(4, 2, 3))
    assert stored["keys"].shape == (4, 6)
