"""Cases of what merges tokens of stills: the matching of ToMe, folder, visionzip,
llavolta, ppe and expedit.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from method_items import Arrays, still, video

from tokcli.methods import resolve
from tokcli.methods.folder import folded, longer, magnified
from tokcli.ops.matching import Merging, bipartite_matching, every_kth_matching
from tokcli.ops.pooling import grid_shape_within
from tokcli.ops.superpixels import reconstructed, superpixels

NOT_PORTABLE = {
    "tome-g12cls_ties_r25": "which of equal tokens merge is left open by the authors' sort: counts, total size and the "
    "size-weighted sum can be compared",
}


def tome(case: str, arrays: Arrays) -> None:
    tokens, metric = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["metric"])
    if "k" in arrays:
        matching = every_kth_matching(metric, int(arrays["k"]))
    else:
        protected = int(arrays["class_token"]) + int(arrays.get("distill_token", 0))
        matching = bipartite_matching(metric, int(arrays["r"]), protected=protected)
    sizes = torch.from_numpy(arrays["size_in"])[:, :, 0] if "size_in" in arrays else None
    start = Merging.start(tokens, sizes)
    left = start.apply(matching, matching.official_order())
    if case in NOT_PORTABLE:
        assert left.sizes.shape == arrays["size_out"].shape[:2]
        assert left.sizes.sum() == arrays["size_out"].sum()
        expected = (arrays["merged_wavg"] * arrays["size_out"]).sum(axis=1)
        np.testing.assert_allclose((left.tokens * left.sizes.unsqueeze(2)).sum(dim=1), expected, atol=1e-3)
        return
    np.testing.assert_allclose(left.tokens, arrays["merged_wavg"], atol=1e-4)
    np.testing.assert_array_equal(left.sizes, arrays["size_out"][:, :, 0])
    if "source" in arrays:
        np.testing.assert_array_equal(left.sources(), arrays["source"])
        alike = start.apply(matching, matching.official_order(), by_size=False)
        np.testing.assert_allclose(alike.tokens, arrays["merged_mean_mode"], atol=1e-4)
    # The authors' unmerge does not know that their merge puts a distillation token in front.
    read = start.apply(matching, matching.sources_first()) if arrays.get("distill_token") else left
    np.testing.assert_allclose(read.unmerge(left.tokens), arrays["unmerged"], atol=1e-4)


def folder(case: str, arrays: Arrays) -> None:
    tokens, r, protected = torch.from_numpy(arrays["x"]), int(arrays["r"]), int(arrays["class_token"])
    length = tokens.shape[1]
    left = folded(tokens, r, protected=protected)
    np.testing.assert_allclose(left.tokens, arrays["metric_out"], atol=1e-3)
    np.testing.assert_array_equal(left.sizes, arrays["size"][:, :, 0])
    values = magnified(left) if longer(length, r) else left.tokens
    np.testing.assert_allclose(values, arrays["out"], atol=1e-3)
    if not protected:
        visual = video(tokens[0], (1, 1, length))
        kept = resolve("folder", max_tokens=length - r, options={"variant": "official"}).compress(visual, "item")
        np.testing.assert_allclose(kept.tokens, arrays["out"][0], atol=1e-3)
        np.testing.assert_array_equal(kept.mass, arrays["size"][0, :, 0])


def visionzip(case: str, arrays: Arrays) -> None:
    if "restored" in arrays:
        visionzip_tiles(arrays)
        return
    # [CLS] comes first and counts as dominant; here it is no token.
    contextual, dominant = int(arrays["contextual"]), int(arrays["dominant_arg"]) - 1
    for hidden, attention, keys, chosen, out in zip(
        arrays["hidden"],
        arrays["cls_attn"],
        arrays["key_headmean"],
        arrays["dominant_idx_sorted_with_cls"],
        arrays["out"],
    ):
        side = math.isqrt(len(hidden) - 1)
        visual = video(
            hidden[1:],
            (1, side, side),
            cls_attention=torch.from_numpy(attention[:, 1:].mean(axis=0)),
            head_mean_keys=torch.from_numpy(keys[1:]),
        )
        count = dominant + contextual
        options = {"variant": "official", "importance": "cls", "contextual_share": contextual / count}
        kept = resolve("visionzip", max_tokens=count, options=options).compress(visual, "item")
        alone = torch.isin(kept.source, torch.from_numpy(chosen[1:] - 1))
        np.testing.assert_array_equal(kept.source[alone], chosen[1:] - 1)
        np.testing.assert_allclose(kept.tokens[alone], out[1 : dominant + 1], atol=1e-4)
        np.testing.assert_allclose(kept.tokens[~alone], out[dominant + 1 :], atol=1e-4)


def visionzip_tiles(arrays: Arrays) -> None:
    """The order of a stitched canvas: a picture is made of which the labelled vectors are the result."""
    tiles, side, dim = len(arrays["out_per_crop"]), 24, arrays["out_per_crop"].shape[2]
    dominant = arrays["all_indices"].shape[1] - 1
    contextual = arrays["out_per_crop"].shape[1] - 1 - dominant
    columns, rows = arrays["grid_wh"].tolist()
    canvas = np.zeros((rows, side, columns, side, dim), np.float32)
    importance = np.zeros((rows, side, columns, side), np.float32)
    for tile, (vectors, indices) in enumerate(zip(arrays["out_per_crop"], arrays["all_indices"])):
        places = np.sort(indices[indices > 0]) - 1
        others = np.setdiff1d(np.arange(side * side), places)
        targets = others[np.arange(contextual) * (len(others) // contextual)]
        values, scores = np.zeros((side * side, dim), np.float32), np.zeros(side * side, np.float32)
        values[places], scores[places] = vectors[1 : dominant + 1], 1.0
        values[targets] = vectors[dominant + 1 :]
        row, column = divmod(tile, columns)
        canvas[row, :, column] = values.reshape(side, side, dim)
        importance[row, :, column] = scores.reshape(side, side)
    tokens = np.concatenate([np.zeros((side * side, dim), np.float32), canvas.reshape(-1, dim)])
    scores = np.concatenate([np.zeros(side * side, np.float32), importance.flatten()])
    visual = still(
        tokens,
        [(side, side), (rows * side, columns * side)],
        ("thumbnail", "crop"),
        cls_attention=torch.from_numpy(scores),
        head_mean_keys=torch.ones(len(tokens), 2),
    )
    each = dominant + contextual
    options = {"variant": "official", "importance": "cls", "contextual_share": contextual / each}
    kept = resolve("visionzip", max_tokens=(1 + tiles) * each, options=options).compress(visual, "item")
    crops = kept.coords[:, 0] == 1
    alone = torch.from_numpy(scores)[kept.source] > 0
    np.testing.assert_allclose(kept.tokens[crops & alone], arrays["restored"][: tiles * dominant], atol=1e-4)
    # Then [CLS] of each tile, and the contextual tokens tile by tile.
    _, _, y, x = kept.coords.unbind(dim=1)
    merged = [kept.tokens[crops & ~alone & (y // side * columns + x // side == tile)] for tile in range(tiles)]
    np.testing.assert_allclose(torch.cat(merged), arrays["restored"][tiles * (dominant + 1) :], atol=1e-4)


def llavolta(case: str, arrays: Arrays) -> None:
    stride, length = int(arrays["stride"]), arrays["x"].shape[1]
    options = {"variant": "official", "stride": stride}
    kept = resolve("llavolta", options=options).compress(video(arrays["x"], (1, 12, 12)), "item")
    np.testing.assert_allclose(kept.tokens, arrays["out"][0], atol=1e-6)
    # Positions are averaged too, in half precision; here a token stands at the place in the middle.
    np.testing.assert_allclose(kept.source + (1 - stride % 2) / 2, arrays["positions_fp16"][0], atol=length / 2**11)


def ppe(case: str, arrays: Arrays) -> None:
    tokens, labels = arrays["x"][0], torch.from_numpy(arrays["cluster_assignment"][0]).long()
    assert not arrays["density_noise_unit"].any()
    side, ids = math.isqrt(len(tokens)), torch.from_numpy(arrays["position_ids"])
    options = {"variant": "official", "neighbours": int(arrays["knn_k"]), "positions": int(arrays["ppe_k"])}
    visual = video(tokens, (1, side, side))
    kept = resolve("ppe", keep=float(arrays["sample_ratio"]), options=options).compress(visual, "item")
    # The authors number clusters by the score of their centres; here they stand where their anchors are.
    number = labels[kept.source]
    assert len(kept) == arrays["merged"].shape[1] == len(number.unique())
    if len(kept) < len(tokens):
        assert kept.assignment is not None
        np.testing.assert_array_equal(number[kept.assignment.long()], labels)
    np.testing.assert_allclose(kept.tokens, arrays["merged"][0, number.numpy()], atol=1e-4)
    places = torch.from_numpy(kept.stats["ppe_positions"]).view(len(kept), -1)
    positions = ids[:, places].transpose(1, 2).flatten(0, 1)
    np.testing.assert_array_equal(positions, arrays["position_out"][:, number.numpy()])


def expedit(case: str, arrays: Arrays) -> None:
    picture, clusters = torch.from_numpy(arrays["x"][0]), torch.from_numpy(arrays["processed_clusters"][0])
    rows, columns = arrays["num_spixels"].tolist()
    options: dict[str, Any] = {
        "iterations": int(arrays["n_iters"]),
        "temperature": float(arrays["temperature"]),
        "window": int(arrays["window"]),
    }
    found = superpixels(picture, (rows, columns), **options)
    expected = arrays["centroids"].reshape(rows * columns, -1)
    np.testing.assert_allclose(found.centroids, expected, atol=2e-3)
    np.testing.assert_array_equal(found.labels, arrays["hard_labels"][0])
    for variant in ("official", "fixed"):
        back = reconstructed(
            picture.flatten(0, 1),
            found.centroids,
            clusters,
            k=int(arrays["k"]),
            temperature=float(arrays["temperature"]),
            variant=variant,
        )
        if variant == "official":
            np.testing.assert_allclose(back, arrays["reconstructed"][0], atol=2e-3)
        else:
            # Of one direction with the authors', and within the clusters, as a mix of them is.
            likeness = torch.nn.functional.cosine_similarity(back, torch.from_numpy(arrays["reconstructed"][0]))
            np.testing.assert_allclose(likeness, 1, atol=1e-5)
            assert bool((back <= clusters.amax(dim=0) + 1e-4).all() and (back >= clusters.amin(dim=0) - 1e-4).all())
    height, width, _ = picture.shape
    kept = resolve("expedit", max_tokens=rows * columns, options=options).compress(
        video(picture, (1, height, width)), "item"
    )
    if grid_shape_within(height, width, rows * columns) == (rows, columns):
        assert kept.assignment is not None
        number = arrays["hard_labels"][0][kept.source.numpy()]
        np.testing.assert_array_equal(np.sort(number), np.unique(arrays["hard_labels"]))
        np.testing.assert_allclose(kept.tokens, expected[number], atol=2e-3)
        np.testing.assert_array_equal(number[kept.assignment.numpy()], arrays["hard_labels"][0])


RUNNERS = {
    "tome": tome,
    "folder": folder,
    "visionzip": visionzip,
    "llavolta": llavolta,
    "ppe": ppe,
    "expedit": expedit,
}
