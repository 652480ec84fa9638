"""Cases of dycoke, vidcom2, aim, tempme and aot."""

from __future__ import annotations

import numpy as np
import torch
from method_items import Arrays, mask_of, video

from tokcli.methods import resolve
from tokcli.ops.matching import Merging, bipartite_matching
from tokcli.ops.pooling import cell_centres
from tokcli.ops.similarity import cosine
from tokcli.ops.transport import EPSILON, sinkhorn, transport_over_time


def dycoke_ttm(case: str, arrays: Arrays) -> None:
    features = torch.from_numpy(arrays["features"])
    steps, places, _ = features.shape
    options = {"variant": "official", "merging_ratio": float(arrays["merging_ratio"])}
    kept = resolve("dycoke", options=options).compress(video(features, (steps, 1, places)), "item").source
    # The authors emit a step that is not whole by ascending similarity with the one it was compared with.
    order = []
    for step in range(steps):
        here = kept[kept // places == step]
        if len(here) < places and step % 4:
            reference = features[step - step % 4 + (step % 4 & (step % 4 - 1))]
            here = here[torch.sort(cosine(features[step], reference)[here % places], stable=True).indices]
        order.append(here)
    index = torch.cat(order)
    expected = arrays["kept_index_in_output_order"]
    if arrays["merging_ratio"] == 0:
        index, expected = kept, np.sort(expected)
    np.testing.assert_array_equal(index, expected)
    if arrays["kept_tokens"].size and arrays["merging_ratio"] != 0:
        np.testing.assert_array_equal(features.reshape(steps * places, -1)[index], arrays["kept_tokens"])


def vidcom2(case: str, arrays: Arrays) -> None:
    options = {"variant": "official", "pruning_rate": float(arrays["q"])}
    visual = video(arrays["video_embeds"], arrays["grid_thw_merged"])
    kept = resolve("vidcom2", options=options).compress(visual, "item")
    assert len(kept) == arrays["retained_count"]
    np.testing.assert_array_equal(mask_of(kept, arrays["retention_mask"].shape), arrays["retention_mask"])


def aim(case: str, arrays: Arrays) -> None:
    left = Merging.start(torch.from_numpy(arrays["x"]))
    schedule = arrays["r_schedule"].tolist()
    for step, r in enumerate(schedule, start=1):
        matching = bipartite_matching(left.tokens, r)
        left = left.apply(matching, matching.official_order(), by_size=False)
        np.testing.assert_allclose(left.tokens, arrays[f"step{step}"], atol=1e-4)
    frames, places, _ = arrays["x"].shape
    if schedule == [places >> (index + 1) for index in range(len(schedule))]:
        options = {"variant": "official", "halvings": len(schedule)}
        kept = resolve("aim", options=options).compress(video(arrays["x"], (frames, 1, places)), "item")
        rows = left.anchors + torch.arange(frames).unsqueeze(1) * places
        # The authors leave what did not merge in front; here all stand in the order of the grid.
        order = rows.flatten().sort().indices
        np.testing.assert_array_equal(kept.source, rows.flatten()[order])
        np.testing.assert_allclose(
            kept.tokens, arrays[f"step{len(schedule)}"].reshape(len(order), -1)[order], atol=1e-4
        )


def tempme_merge(case: str, arrays: Arrays) -> None:
    protected = int(arrays["cls_num"])
    tokens, metric = (torch.from_numpy(arrays[name]) for name in ("x", "metric"))
    sizes = torch.from_numpy(arrays["size_in"])[:, :, 0]
    matching = bipartite_matching(metric[:, protected:], int(arrays["r"]), first_source=protected % 2)
    left = Merging.start(tokens[:, protected:], sizes[:, protected:])
    left = left.apply(matching, matching.sources_first())
    np.testing.assert_allclose(torch.cat([tokens[:, :protected], left.tokens], dim=1), arrays["out"], atol=1e-4)
    np.testing.assert_array_equal(torch.cat([sizes[:, :protected], left.sizes], dim=1), arrays["size_out"][:, :, 0])
    went = torch.zeros(arrays["source"].shape, dtype=torch.int64)
    went[:, range(protected), range(protected)] = 1
    went[:, protected:, protected:].scatter_(1, left.labels.unsqueeze(1), 1)
    np.testing.assert_array_equal(went, arrays["source"])


def aot_sinkhorn(case: str, arrays: Arrays) -> None:
    kernel = torch.exp(-torch.from_numpy(arrays["cost"]) / float(arrays["eps"]))
    np.testing.assert_allclose(sinkhorn(kernel, int(arrays["max_iter"])), arrays["plan"], rtol=1e-4, atol=1e-7)


def aot_temporal_ot(case: str, arrays: Arrays) -> None:
    assert float(arrays["eps"]) == EPSILON
    merged, stays, plan = transport_over_time(
        torch.from_numpy(arrays["anchors"]),
        torch.from_numpy(arrays["sources"]),
        int(arrays["dt"]),
        float(arrays["keep_ratio"]),
        width=float(arrays["sigma_t"]),
        max_iterations=int(arrays["max_iter"]),
    )
    np.testing.assert_array_equal(stays, arrays["keep_mask"])
    np.testing.assert_allclose(merged, arrays["new_anchors"], atol=1e-4)
    np.testing.assert_allclose(plan, arrays["plan"], rtol=1e-4, atol=1e-7)


def aot(case: str, arrays: Arrays) -> None:
    layers = torch.from_numpy(arrays["attention_sum_over_queries_by_layer_mean_heads"])
    steps, side = arrays["features"].shape[0], 27
    signals = {"received_attention": layers[-2].flatten(), "cls_attention": layers[5].flatten()}
    visual = video(arrays["features"], (steps, side, side), **signals)
    options = {
        "variant": "official",
        "local_importance": "cls",
        "anchors": int(arrays["visual_token_num"]),
        "global_share": float(arrays["global_ratio"]),
        "survivors": float(arrays["keep_ratio"]),
    }
    # With clips of one step nothing happens over time: what a clip starts from, cell by cell.
    alone = resolve("aot", options={**options, "clip_steps": 1}).compress(visual, "item")
    centres = cell_centres(side, 14)
    cells = (centres.unsqueeze(1) * side + centres).flatten()
    places = torch.arange(steps).unsqueeze(1) * side * side + cells
    np.testing.assert_array_equal(torch.isin(places, alone.source), arrays["pooled_mask_196"])
    clip_steps = int(arrays["segments"][0, 1])
    kept = resolve("aot", options={**options, "clip_steps": clip_steps}).compress(visual, "item")
    # The authors emit the anchors of a clip's first step, the survivors of the others, and the anchors as merged.
    rows = []
    for start, length in arrays["segments"].tolist():
        if length > 1:
            rows.append(alone.tokens[alone.coords[:, 1] == start])
        later = (kept.coords[:, 1] > start) & (kept.coords[:, 1] < start + length)
        rows += [kept.tokens[later], kept.tokens[kept.coords[:, 1] == start]]
    np.testing.assert_allclose(torch.cat(rows), arrays["final_tokens"], atol=1e-4)


RUNNERS = {
    "dycoke_ttm": dycoke_ttm,
    "vidcom2": vidcom2,
    "aim": aim,
    "tempme_merge": tempme_merge,
    "aot": aot,
    "aot_sinkhorn": aot_sinkhorn,
    "aot_temporal_ot": aot_temporal_ot,
}
