"""Cases of the methods that find centres by density peaks: holitom, fastvid and prunevid."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from method_items import Arrays, video

from tokcli.methods import resolve
from tokcli.methods.fastvid import FastvidOptions, merge_segments, segment_ends
from tokcli.methods.holitom import blend, windows
from tokcli.methods.prunevid import refine_labels
from tokcli.ops.density import DensityPeaks
from tokcli.ops.similarity import cosine
from tokcli.types import VisualTokens

NOT_PORTABLE = {
    "holitom_outer-tiny_budget_r0p02_nonportable": "with one cluster all densities are equal and the authors' centre "
    "is arbitrary: counts and the tokens that were only pruned can be compared",
}
ATOL = 1e-4


def frames_of(arrays: Arrays, **signals: torch.Tensor) -> VisualTokens:
    steps, places, _ = arrays["features"].shape
    return video(arrays["features"], (steps, 1, places), **signals)


def holitom_segmentation(case: str, arrays: Arrays) -> None:
    still = arrays["adjacent_sim"] > arrays["tau"]
    assert len(still) == arrays["num_frames"] - 1
    found, saved = windows(still, int(arrays["max_window_size"]))
    np.testing.assert_array_equal([(start, stop - 1) for start, stop in found], arrays["segments"])
    assert saved == arrays["total_reduced"]


def holitom_dpcknn(case: str, arrays: Arrays) -> None:
    count, beta = int(arrays["cluster_num"]), float(arrays["beta"]) if arrays["use_beta"] else None
    for index, points in enumerate(torch.from_numpy(arrays["x"])):
        peaks = DensityPeaks(points, int(arrays["k"]))
        np.testing.assert_allclose(peaks.log_density.exp().numpy(), arrays["density"][index], atol=1e-6)
        centres = peaks.centres(count)
        np.testing.assert_array_equal(centres.numpy(), arrays["center_index_by_score"][index])
        centres = centres.sort().values
        merged = blend(points, centres, peaks.nearest(centres), beta)
        np.testing.assert_allclose(merged.numpy(), arrays["merged"][index], atol=ATOL)


def holitom_outer(case: str, arrays: Arrays) -> None:
    visual = frames_of(arrays, received_attention=torch.from_numpy(arrays["attention"]).flatten())
    options = {
        "variant": "official",
        "tau": float(arrays["tau"]),
        "beta": float(arrays["beta"]) if arrays["use_beta"] else None,
        "neighbours": int(arrays["K"]),
        "max_window": int(arrays["max_window_size"]),
    }
    kept = resolve("holitom", keep=float(arrays["retain_ratio"]), options=options).compress(visual, "item")
    merged = arrays["merged_tokens"]
    if str(arrays["newline"]) == "grid":
        # The authors put newlines between the rows, and there alone their order is that of the grid.
        tokens = merged[~(merged == 7.0).all(axis=1)]
        np.testing.assert_allclose(kept.tokens.numpy(), tokens, atol=ATOL)
        return
    places = arrays["features"].shape[1]
    source = arrays["token_frame"] * places + arrays["token_grid_pos"]
    order = np.argsort(source)
    moving = arrays["token_is_dynamic"][order] == 1
    if case in NOT_PORTABLE:
        assert len(kept) == len(merged)
        assert set(source[order][moving]) <= set(kept.source.tolist())
        return
    np.testing.assert_array_equal(kept.source.numpy(), source[order])
    np.testing.assert_allclose(kept.tokens.numpy(), merged[order], atol=ATOL)
    window_of = {start: stop - start + 1 for start, stop in arrays["segments"].tolist()}
    least = [1 if moves else window_of[int(frame)] for moves, frame in zip(moving, arrays["token_frame"][order])]
    assert (kept.mass.numpy() >= least).all()


def fastvid(case: str, arrays: Arrays) -> None:
    visual = frames_of(arrays, meanq=torch.from_numpy(arrays["attention"]).flatten())
    places = arrays["features"].shape[1]
    options = FastvidOptions(
        variant="official",
        keep=float(arrays["retention_ratio"]),
        segments=int(arrays["dyseg_c"]),
        tau=float(arrays["dyseg_tau"]),
        context_share=float(arrays["stprune_d"]),
        anchor_every=int(arrays["dtm_p"]),
        beta=float(arrays["dtm_beta"]),
    )
    # The pooled output of another tower, where the method by itself takes the mean tokens of the steps.
    frames = torch.from_numpy(arrays["frame_global"])
    similarity = cosine(frames[:-1], frames[1:])
    np.testing.assert_allclose(similarity.numpy(), arrays["adjacent_frame_sim"], atol=1e-6)
    ends = segment_ends(similarity, options.segments, options.tau)
    np.testing.assert_array_equal(np.diff(ends, prepend=0), arrays["segment_sizes"])
    steps = torch.arange(len(visual)).view(-1, places)
    segments = [list(steps[start:stop]) for start, stop in zip([0, *ends], ends)]
    kept = merge_segments(visual, options, segments)
    np.testing.assert_array_equal(kept.source.numpy(), arrays["kept_index"])
    np.testing.assert_allclose(kept.tokens.numpy(), arrays["kept_tokens"], atol=ATOL)
    merged = np.bincount(arrays["kept_index"] // places, minlength=len(frames)) - int(arrays["frame_salient_num"])
    np.testing.assert_array_equal(merged, arrays["context_num_per_frame"])


def prunevid(case: str, arrays: Arrays) -> None:
    options = {
        "tau": float(arrays["tau"]),
        "window_share": float(arrays["temporal_segment_ratio"]),
        "cluster_share": float(arrays["cluster_ratio"]),
        "neighbours": int(arrays["k"]),
    }
    kept = resolve("prunevid", options=options).compress(frames_of(arrays), "item")
    np.testing.assert_array_equal(refine_labels(arrays["frame_labels"].astype(np.int64)), arrays["refined_labels"])
    assert len(kept) == len(arrays["tokens"])
    start = first = 0
    for steps, still, moving in zip(arrays["window_sizes"], arrays["static_sizes"], arrays["dynamic_sizes"]):
        size = still + moving
        window = kept.coords[:, 1].numpy()
        mine = kept.tokens.numpy()[(window >= start) & (window < start + steps)]
        assert_same_rows(mine, arrays["tokens"][first : first + size])
        start, first = start + steps, first + size


def assert_same_rows(mine: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> None:
    """Equal within ``ATOL`` in some order: the authors put a window's averages first, by score."""
    assert mine.shape == theirs.shape
    apart = np.abs(mine[:, None] - theirs[None]).max(axis=-1)
    nearest = apart.argmin(axis=1)
    assert len(set(nearest.tolist())) == len(mine)
    assert apart[np.arange(len(mine)), nearest].max() < ATOL


def prunevid_refine(case: str, arrays: Arrays) -> None:
    refined = refine_labels(arrays["labels"].astype(np.int64))
    np.testing.assert_array_equal(refined, arrays["refined"])
    edges = np.flatnonzero(np.diff(refined, prepend=-1, append=-1))
    np.testing.assert_array_equal(np.diff(edges), arrays["segment_lengths"])


RUNNERS = {
    "holitom_segmentation": holitom_segmentation,
    "holitom_outer": holitom_outer,
    "holitom_dpcknn": holitom_dpcknn,
    "fastvid_ov": fastvid,
    "prunevid": prunevid,
    "prunevid_refine": prunevid_refine,
}
