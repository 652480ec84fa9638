"""Cases of rlt: on frames, which the method knows by how much the pixels under each token changed."""

from __future__ import annotations

import numpy as np
import torch
from method_items import Arrays, mask_of, video

from tokcli.methods import resolve
from tokcli.models.preprocess import pixel_change

STD = np.array([0.229, 0.224, 0.225])


def rlt(case: str, arrays: Arrays) -> None:
    """The authors' change is on normalised values, so the signal and the threshold are both in these units here.

    That the tower compares the same two frames is held by its own signal on the same frames, in [0, 1].
    """
    frames, tubelet, patch = arrays["frames_uint8"], int(arrays["tubelet_size"]), int(arrays["patch_size"])
    grid = arrays["keep_mask"].shape
    difference = np.abs(frames[2 * tubelet - 1 :: tubelet] / 255 - frames[: -tubelet or None : tubelet] / 255)

    def by_patch(values: np.ndarray) -> np.ndarray:
        mean = values.reshape(grid[0] - 1, grid[1], patch, grid[2], patch, 3).mean(axis=(2, 4, 5))
        return np.concatenate([np.full((1, *grid[1:]), np.inf), mean])

    np.testing.assert_allclose(pixel_change(None, frames, tubelet, patch), by_patch(difference).reshape(-1), rtol=1e-6)
    change = torch.from_numpy(by_patch(difference / STD).astype(np.float32).reshape(-1))
    visual = video(torch.zeros(change.numel(), 1), grid, pixel_change=change)
    kept = resolve("rlt", threshold=float(arrays["threshold"])).compress(visual, "item")
    np.testing.assert_array_equal(mask_of(kept, grid), arrays["keep_mask"])
    assert len(kept) == arrays["kept"]
    # The authors list the lengths by row, column, step; ours stand in the order of the tokens.
    order = np.lexsort((kept.coords[:, 1], kept.coords[:, 3], kept.coords[:, 2]))
    np.testing.assert_array_equal(kept.stats["run_length"][order], arrays["lengths_hw_major"])
    assert kept.stats["run_length"].sum() == len(visual)


RUNNERS = {"rlt": rlt}
