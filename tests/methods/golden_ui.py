"""Cases of the methods for screenshots, from their pixels on."""

from __future__ import annotations

import numpy as np
import torch
from method_items import Arrays, mask_of, video

from tokcli.methods import resolve
from tokcli.methods.focusui import region_scores, run_ends
from tokcli.methods.showui import DEVIATIONS, retained
from tokcli.methods.ui_graph import regions_of
from tokcli.models.preprocess import neighbour_distance
from tokcli.ops.selection import top_k
from tokcli.types import VisualTokens

SQUARE = 28
IMAGE, MARKER = 151655, 999
NOT_PORTABLE = {
    "focusui_pospad-sel_140_ties_r05": "the authors draw lots among equal scores: the scores that are kept can be "
    "compared",
}


def screenshot(arrays: Arrays) -> tuple[VisualTokens, tuple[int, int, int]]:
    image = arrays["image_rgb_u8"]
    grid = (1, image.shape[0] // SQUARE, image.shape[1] // SQUARE)
    distances = torch.from_numpy(neighbour_distance(image[None], SQUARE))
    return video(torch.ones(grid[1] * grid[2], 1), grid, neighbour_distance=distances), grid


def showui(case: str, arrays: Arrays) -> None:
    labels, ratio = torch.from_numpy(arrays["assign"]).long(), float(str(arrays["skip_ratio"]))
    np.testing.assert_array_equal(retained(labels, ratio), arrays["retain_mask"])
    if "image_rgb_u8" not in arrays:
        return
    visual, grid = screenshot(arrays)
    threshold = float(arrays["threshold"])
    (regions,) = regions_of(visual, threshold, DEVIATIONS)
    np.testing.assert_array_equal(regions.labels, labels)
    kept = resolve("showui", threshold=threshold, options={"skip_ratio": ratio}).compress(visual, "item")
    np.testing.assert_array_equal(mask_of(kept, grid).flatten(), arrays["retain_mask"])


def focusui_pospad(case: str, arrays: Arrays) -> None:
    if "image_rgb_u8" in arrays:
        visual, _ = screenshot(arrays)
        (regions,) = regions_of(visual, float(arrays["threshold"]), (1.0, 1.0, 1.0))
        scores = region_scores(regions.labels, bytes(arrays["mode"].tolist()).decode())  # type: ignore[arg-type]
        np.testing.assert_allclose(scores, arrays["score_merged"], atol=1e-6)
        return
    image = arrays["input_ids"][0] == IMAGE
    scores = torch.from_numpy(arrays["patch_scores"])
    count = int(len(scores) * (1 - float(str(arrays["reduct_ratio"]))))
    chosen = top_k(scores, count)
    expected = np.flatnonzero(arrays["keep_mask"][0][image])
    if case in NOT_PORTABLE:
        np.testing.assert_array_equal(np.sort(scores[chosen]), np.sort(scores[expected]))
        return
    np.testing.assert_array_equal(chosen.sort().values, expected)
    # Text is never dropped, and ends a run.
    kept = torch.from_numpy(~image)
    kept[np.flatnonzero(image)[chosen]] = True
    np.testing.assert_array_equal(kept, arrays["keep_mask"][0])
    marks = run_ends(kept).numpy()
    positions = np.union1d(np.flatnonzero(kept), marks)
    np.testing.assert_array_equal(positions, arrays["selected_positions"])
    np.testing.assert_array_equal(np.isin(positions, marks), arrays["drop_marker_mask"])
    ids = np.where(np.isin(positions, marks), MARKER, arrays["input_ids"][0][positions])
    np.testing.assert_array_equal(ids, arrays["out_ids"])


RUNNERS = {"showui": showui, "focusui_pospad": focusui_pospad}
