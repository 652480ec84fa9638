"""Choosing frames of a clip by their features: by clusters, by cuts, or evenly.

``features`` is float32 (T, D), a row for each frame, and frames are compared by Euclidean distance. All of it is
deterministic: ties go to the earlier frame.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tokcli.ops.nearest import faiss_on_one_thread

KMEANS_ROUNDS = 25

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


def evenly(count: int, k: int) -> Indices:
    """The middle frames of ``k`` equal parts of ``count`` frames: int64 (k,), ascending; ``k`` is at most ``count``."""
    return (2 * np.arange(k, dtype=np.int64) + 1) * count // (2 * k)


def farthest_first(features: Floats, k: int, chosen: Indices | None = None) -> Indices:
    """``k`` different frames, each the farthest from those before it: int64 (k,), in that order.

    Goes on from int64 (c,) ``chosen``, which the result begins with; else from the first frame.
    """
    picked = [0] if chosen is None or len(chosen) == 0 else chosen.tolist()
    nearest = np.full(len(features), np.inf, dtype=np.float32)
    for index in range(max(k, len(picked))):
        if index == len(picked):
            picked.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.square(features - features[picked[index]]).sum(axis=1))
        nearest[picked[index]] = -1.0
    return np.array(picked[:k], dtype=np.int64)


def by_clusters(features: Floats, k: int) -> Indices:
    """The frame nearest to the middle of each of ``k`` clusters: int64 (k,), ascending; ``k`` is at most T.

    FAISS's k-means, begun with frames that are far from one another, so that a short scene is not lost among long ones.
    Where a cluster is left without frames, as among equal ones, the frame farthest from all chosen stands in.
    """
    if k >= len(features):
        return np.arange(len(features), dtype=np.int64)
    seeds = features[farthest_first(features, k)]
    with faiss_on_one_thread() as faiss:
        clustering = faiss.Kmeans(
            features.shape[1], k, niter=KMEANS_ROUNDS, min_points_per_centroid=1, max_points_per_centroid=len(features)
        )
        clustering.train(features, init_centroids=seeds)
        distances, labels = clustering.index.search(features, 1)
    by_distance = np.lexsort((distances[:, 0], labels[:, 0]))
    _, first = np.unique(labels[by_distance, 0], return_index=True)
    return np.sort(farthest_first(features, k, by_distance[first]))


def by_cuts(features: Floats, k: int | None, threshold: float | None = None) -> Indices:
    """The middle frame of each run of frames between cuts: int64, ascending.

    Cuts are where a frame differs from the one before by more than ``threshold``, or the ``k`` - 1 largest differences.
    """
    steps = np.sqrt(np.square(np.diff(features, axis=0)).sum(axis=1))
    largest = np.argsort(-steps, kind="stable")[: len(steps) if k is None else k - 1]
    cuts = np.sort(largest if threshold is None else largest[steps[largest] > threshold])
    edges = np.concatenate([[0], cuts + 1, [len(features)]]).astype(np.int64)
    return (edges[:-1] + edges[1:] - 1) // 2


def unit_features(features: Floats) -> Floats:
    """Rows at length 1, so that distances tell directions apart; zeros stay zeros."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(lengths, np.float32(1e-8))


def thumbnails(pixels: npt.NDArray[np.uint8], side: int = 16) -> Floats:
    """Frames uint8 (n, h, w, 3) as vectors: the means of ``side`` x ``side`` cells, (n, side * side * 3).

    Scaled so that the distance of two frames is the root mean square of the change of their cells, from 0 to 1.
    """
    rows, columns = (np.linspace(0, size, min(side, size) + 1).astype(np.int64) for size in pixels.shape[1:3])
    by_row = np.add.reduceat(pixels, rows[:-1], axis=1, dtype=np.uint32)
    sums = np.add.reduceat(by_row, columns[:-1], axis=2)
    areas = np.diff(rows)[:, None] * np.diff(columns)
    cells = (sums / areas[:, :, None] / 255.0).reshape(len(pixels), -1).astype(np.float32)
    return cells / np.float32(np.sqrt(cells.shape[1]))
