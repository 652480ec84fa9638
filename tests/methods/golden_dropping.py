"""Cases of dtd and evs: which tokens are left, and where they stand in a language model's sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from method_items import Arrays, mask_of, video

from tokcli.methods import resolve
from tokcli.methods.dtd import trigger_steps
from tokcli.models.preprocess import pixel_change
from tokcli.types import TokenSet, VisualTokens

NOT_PORTABLE = {
    "dtd_feature-bugcase_temporal_id_collision": "the authors' frames fuse when temporal position ids coincide; "
    "steps are told apart by their number in the grid here, so only its first step is kept whole",
    "evs-identical_frames_q0p5": "all scores are equal up to rounding: only the count can be compared",
}


def check_dtd(case: str, arrays: Arrays, visual: VisualTokens, criterion: str) -> None:
    threshold, absolute = float(arrays["threshold"]), bool(arrays["absolute"])
    options = {"variant": "official", "criterion": criterion, "absolute": absolute}
    kept = resolve("dtd", threshold=threshold, options=options).compress(visual, "item")
    mask = mask_of(kept, arrays["keep_mask"].shape)
    if case in NOT_PORTABLE:
        assert mask[0].all() and not mask[1].all(), "only the first step is kept whole, not the fused pair"
        return
    np.testing.assert_array_equal(mask, arrays["keep_mask"])
    np.testing.assert_array_equal(kept.stats["drop_ratio"], arrays["per_frame_drop_ratio"])
    assert mask.size - mask.sum() == arrays["drop"] and mask.size == arrays["total"]
    # In a language model's sequence: the text around the video stays, positions are gathered and never renumbered.
    length, start = arrays["position_ids"].shape[1], int(arrays["video_start"])
    video_index = start + kept.source.numpy()
    index = np.concatenate([np.arange(start), video_index, np.arange(start + mask.size, length)])
    np.testing.assert_array_equal(index, arrays["kept_seq_index"])
    np.testing.assert_array_equal(arrays["position_ids"][:, index], arrays["kept_position_ids"])
    first = arrays["position_ids"][:, start : start + 1]
    np.testing.assert_array_equal(
        (arrays["position_ids"][1:, video_index] - first[1:]).T, kept.coords[:, 2:].numpy(), "rows and columns"
    )


def dtd_feature(case: str, arrays: Arrays) -> None:
    check_dtd(case, arrays, video(arrays["video_features"], arrays["grid_thw"]), "feature")


def dtd_pixel(case: str, arrays: Arrays) -> None:
    steps, height, width = arrays["grid_thw"].tolist()
    frames = arrays["frames_uint8"]
    change = pixel_change(None, frames, len(frames) // steps, frames.shape[1] // height)
    np.testing.assert_allclose(change[height * width :], arrays["mean_abs_diff"].flatten(), atol=1e-6)
    tokens = np.ones((steps, height * width, 2), dtype=np.float32)
    check_dtd(case, arrays, video(tokens, arrays["grid_thw"], pixel_change=torch.from_numpy(change)), "pixel")


def dtd_trigger(case: str, arrays: Arrays) -> None:
    steps = trigger_steps(arrays["drop_ratio_f64"])
    np.testing.assert_array_equal((steps + 1) * arrays["frame_each_process"], arrays["trigger_time"])


def evs(case: str, arrays: Arrays) -> None:
    if "evs_count" in arrays:
        for places, steps, rate, count in zip(
            arrays["tokens_per_frame"], arrays["num_frames"], arrays["q_f64"], arrays["evs_count"]
        ):
            assert len(evs_official(np.ones((steps, places, 1), np.float32), (steps, 1, places), rate)) == count
        return
    grid = arrays["grid_thw_merged"]
    kept = evs_official(arrays["video_embeds"], grid, float(arrays["q"]))
    assert len(kept) == arrays["retained_count"]
    if case in NOT_PORTABLE:
        assert not arrays["index_portable"]
        return
    mask = mask_of(kept, arrays["retention_mask"].shape)
    np.testing.assert_array_equal(mask, arrays["retention_mask"])
    positions = kept.coords[:, 1:].numpy().astype(np.float64)
    positions[:, 0] *= float(arrays["tokens_per_second"]) * float(arrays["second_per_grid"])
    np.testing.assert_array_equal(positions.astype(np.int32), arrays["mrope_kept"][:, :3])
    np.testing.assert_array_equal(arrays["mrope_all"][mask.flatten()], arrays["mrope_kept"])


def evs_official(tokens: npt.NDArray[Any], grid: Any, rate: float) -> TokenSet:
    options = {"variant": "official", "pruning_rate": float(rate)}
    return resolve("evs", options=options).compress(video(tokens, grid), "item")


RUNNERS = {"dtd_feature": dtd_feature, "dtd_pixel": dtd_pixel, "dtd_trigger": dtd_trigger, "evs": evs}
