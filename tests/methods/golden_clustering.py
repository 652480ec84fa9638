"""Cases of the methods that cluster: vqtoken, ktv, centerclip; and of ts_llava's sampling and thumbnail."""

from __future__ import annotations

import numpy as np
import torch
from method_items import Arrays, video

from tokcli.methods import resolve
from tokcli.methods.ktv import keyframes, token_scores
from tokcli.methods.vqtoken import best_count
from tokcli.ops.directions import DirectionGroups, Directions, cosine_kmeans
from tokcli.ops.kmeans import Points, kmeans
from tokcli.ops.medoids import affinity, farthest_points, pairwise_distances, shortened
from tokcli.ops.selection import evenly_spread, top_k
from tokcli.ops.thumbnail import thumbnail, tile_grid

NOT_PORTABLE = {
    "vqtoken_adaptive-elbow_max32_seed0": "the start is drawn from torch's random stream, and with it the "
    "distortions and the number of codes: the averaging can be compared, and the bounds of the official elbow",
    "vqtoken_adaptive-silhouette_max20_seed0": "as above; besides, the rule is not offered, as it always gives 12",
    "centerclip_spectral-N98_K16_property_only": "rounding decides: a change of 1e-6 moved a third of the medoids; the "
    "affinities can be compared",
}


def vqtoken_kmeans(case: str, arrays: Arrays) -> None:
    tokens = torch.from_numpy(arrays["tokens"]).flatten(0, 1)
    directions = Directions(tokens)
    centroids, groups = cosine_kmeans(
        directions,
        torch.from_numpy(arrays["init_centroids"]),
        max_iterations=int(arrays["max_iteration"]),
        tolerance=float(arrays["tol"]),
    )
    np.testing.assert_array_equal(groups.labels, arrays["labels"].flatten())
    np.testing.assert_array_equal(groups.sizes, arrays["counts"])
    np.testing.assert_allclose(centroids, arrays["centroids"], atol=1e-5)
    np.testing.assert_allclose(groups.means(), arrays["cluster_means"], atol=1e-5)


def vqtoken_elbow(case: str, arrays: Arrays) -> None:
    official = best_count(arrays["distortions_f64"], "official")
    assert official == arrays["best_K"] == max(arrays["compute_elbow"] + 2, 12)
    assert best_count(arrays["distortions_f64"]) == 12 + arrays["compute_elbow"] - 1


def vqtoken_adaptive(case: str, arrays: Arrays) -> None:
    tokens, labels = arrays["tokens"], torch.from_numpy(arrays["labels"]).flatten().long()
    groups = DirectionGroups(
        Directions(torch.from_numpy(tokens).flatten(0, 1)), int(arrays["best_K"]), tokens.shape[-1]
    )
    groups.move(labels)
    np.testing.assert_allclose(groups.means(), arrays["cluster_means"], atol=1e-5)
    options = {"variant": "official", "start": "k-means++", "max_codes": int(arrays["max_K"]), "rescale": "none"}
    kept = resolve("vqtoken", options=options).compress(video(tokens, (8, 9, 9)), "item")
    assert case in NOT_PORTABLE and 12 <= len(kept) <= max(12, int(arrays["max_K"]) - 10)
    assert bool((torch.linalg.vector_norm(kept.tokens, dim=1) < 1).all())


def ktv_keyframes(case: str, arrays: Arrays) -> None:
    features, count = torch.from_numpy(arrays["frame_features"]), int(arrays["K"])
    points = Points(features)
    by_cluster = points.squared_distances(kmeans(points, count, restarts=10, seed=0)).argmin(dim=1)
    np.testing.assert_array_equal(by_cluster, arrays["keyframe_index_by_cluster"])
    np.testing.assert_array_equal(keyframes(features, count), arrays["keyframe_index_sorted"])


def ktv_tokens(case: str, arrays: Arrays) -> None:
    features, logits = (
        torch.from_numpy(arrays["patch_features_with_cls"][:, 1:]),
        torch.from_numpy(arrays["cls_logits"]),
    )
    frames, alpha = int(arrays["num_frames"]), float(arrays["alpha"])
    kept = [
        top_k(token_scores(frame, importance, alpha), int(count)).sort().values
        for frame, importance, count in zip(features, logits, arrays["counts"])
    ]
    np.testing.assert_array_equal(torch.cat(kept), arrays["kept_index"])
    if arrays["keyframe_order"].size:
        return  # The budgets of frames that were ranked by a question: which tokens is compared, not how many.
    total = int(arrays["tokens_num"])
    visual = video(features, (frames, 24, 24), cls_attention=logits.flatten())
    options = {"variant": "official", "importance": "cls", "alpha": alpha, "keyframes": frames}
    whole = resolve("ktv", max_tokens=total, options=options).compress(visual, "item")
    np.testing.assert_array_equal(whole.source % 576, arrays["kept_index"])
    np.testing.assert_array_equal(torch.bincount(whole.source // 576), arrays["counts"])


def centerclip_kmedoids(case: str, arrays: Arrays) -> None:
    count, distance = int(arrays["K"]), str(arrays["distance"])
    options = {
        "distance": distance,
        "normalize": bool(arrays["pre_norm"]),
        "max_iterations": int(arrays["iter_limit"]),
        "frames_per_segment": 1,
    }
    for index, points in enumerate(torch.from_numpy(arrays["X"])):
        compared = shortened(points) if arrays["pre_norm"] else points
        distances = pairwise_distances(compared, "cosine" if distance == "cosine" else "euclidean")
        first = int(torch.linalg.vector_norm(points.double(), dim=1).argmax())
        np.testing.assert_array_equal(farthest_points(distances, count, first), arrays["kkz_init"][index])
        visual = video(points, (1, 1, len(points)))
        kept = resolve("centerclip", max_tokens=count, options=options).compress(visual, "item")
        np.testing.assert_array_equal(kept.source, arrays["medoids"][index])
        np.testing.assert_array_equal(kept.assignment, arrays["assign"][index])


def centerclip_module(case: str, arrays: Arrays) -> None:
    tokens, out = arrays["tokens"], arrays["out"]
    algorithms = {"kmediods++": "k-medoids", "pooling": "pooling", "sparse_sampling": "sparse"}
    algorithm = algorithms[str(arrays["algorithm"])]
    options = {
        "algorithm": algorithm,
        "frames_per_segment": int(arrays["frames_per_segment"]),
        "aggregate": "mean" if arrays["aggregation"] == "mean" else "medoid",
    }
    budget = None if algorithm == "pooling" else int(arrays["K"]) * len(out)
    kept = resolve("centerclip", max_tokens=budget, options=options).compress(video(tokens, (12, 7, 7)), "item")
    # The first row of a segment is the mean of its class tokens, which are not visual tokens.
    np.testing.assert_allclose(kept.tokens, out[:, 1:].reshape(-1, tokens.shape[-1]), atol=1e-4)


def centerclip_spectral(case: str, arrays: Arrays) -> None:
    sigma, count = float(arrays["sigma"]), int(arrays["K"])
    for points, affinities in zip(torch.from_numpy(arrays["X"]), arrays["affinity"]):
        np.testing.assert_allclose(affinity(points, sigma), affinities, atol=1e-5)
        visual = video(points, (2, 7, 7))
        options = {"algorithm": "spectral", "sigma": sigma}
        kept = resolve("centerclip", max_tokens=count, options=options).compress(visual, "item")
        assert case in NOT_PORTABLE and len(kept) == count and kept.mass.sum() == len(points)


def ts_llava_sampling(case: str, arrays: Arrays) -> None:
    total, samples = int(arrays["total_tokens"]), int(arrays["num_samples"])
    visual = video(np.ones((total, 1), np.float32), (1, 1, total))
    kept = resolve("ts_llava", max_tokens=samples).compress(visual, "item")
    np.testing.assert_array_equal(kept.source, arrays["index"])


def ts_llava_thumbnail(case: str, arrays: Arrays) -> None:
    frames, count = torch.from_numpy(arrays["frames_uint8"]), int(arrays["num_thumbnail_frames"])
    np.testing.assert_array_equal(evenly_spread(len(frames), count), arrays["sampled_index"])
    np.testing.assert_array_equal(tile_grid(count), arrays["grid_rows_cols"])
    picture = thumbnail(frames, count, int(arrays["final_height"]), int(arrays["final_width"]))
    np.testing.assert_allclose(picture, arrays["thumbnail"], atol=1e-3)


RUNNERS = {
    "vqtoken_kmeans": vqtoken_kmeans,
    "vqtoken_elbow": vqtoken_elbow,
    "vqtoken_adaptive": vqtoken_adaptive,
    "ktv_keyframes": ktv_keyframes,
    "ktv_tokens": ktv_tokens,
    "centerclip_kmedoids": centerclip_kmedoids,
    "centerclip_module": centerclip_module,
    "centerclip_spectral": centerclip_spectral,
    "ts_llava_sampling": ts_llava_sampling,
    "ts_llava_thumbnail": ts_llava_thumbnail,
}
