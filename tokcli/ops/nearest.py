"""Nearest neighbours by inner product, with FAISS, in a matrix that is searched again and again while it grows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

FLAT_ROWS = 32_768
"""Beyond this many rows inverted lists are faster than multiplying with all of them, by what was measured on a CPU."""
LISTS_PER_ROOT = 2
PROBES = 16
TRAINING_ROWS_PER_LIST = 40
TRAINING_ROUNDS = 4

Floats = npt.NDArray[np.float32]


@contextmanager
def faiss_on_one_thread() -> Iterator[Any]:
    """Give the module, set to one thread while in use: results do not depend on the number of cores."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield faiss
    finally:
        faiss.omp_set_num_threads(threads)


class NearestSearch:
    """Finds the row of a matrix that has the largest inner product with a query; ties go to the lowest row.

    ``kind``: ``flat`` looks at every row; ``ivf`` looks into the nearest 16 of FAISS's inverted lists and may miss the
    best row; ``auto`` is flat up to ``FLAT_ROWS`` rows and ivf beyond. Where FAISS has been built for GPUs and there is
    one, flat searches run on it.
    """

    def __init__(self, kind: str = "auto") -> None:
        self._kind = kind
        self._index: Any = None
        self._gpu: Any = None
        self._is_ivf = False
        self._indexed = 0
        self._trained_on = 0

    def search(self, queries: Floats, rows: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
        """The largest inner product of each query, float32 (n,), and the row it is with, int64 (n,).

        ``queries``: float32 (n, D); ``rows``: float32 (m, D), m > 0, the matrix of the last call with more rows below,
        unless :meth:`reset` was called since.
        """
        ivf = self._kind == "ivf" or (self._kind == "auto" and len(rows) > FLAT_ROWS)
        with faiss_on_one_thread() as faiss:
            if not ivf and not _has_gpu(faiss):
                products, found = faiss.knn(queries, rows, 1, metric=faiss.METRIC_INNER_PRODUCT)
            else:
                self._update(faiss, rows, ivf)
                products, found = self._index.search(queries, 1)
        return products[:, 0], found[:, 0]

    def reset(self) -> None:
        """Forget the matrix: rows were removed or changed."""
        if self._index is not None:
            self._index.reset()
        self._indexed = 0

    def _update(self, faiss: Any, rows: Floats, ivf: bool) -> None:
        """Bring the index to the state of the matrix, a new one if the matrix has outgrown it."""
        if self._index is None or ivf != self._is_ivf or (ivf and len(rows) > 4 * self._trained_on):
            self._index = _inverted_lists(faiss, rows) if ivf else self._on_gpu(faiss, rows.shape[1])
            self._is_ivf, self._indexed, self._trained_on = ivf, 0, len(rows)
        self._index.add(rows[self._indexed :])
        self._indexed = len(rows)

    def _on_gpu(self, faiss: Any, width: int) -> Any:
        self._gpu = self._gpu or faiss.StandardGpuResources()
        return faiss.index_cpu_to_gpu(self._gpu, 0, faiss.IndexFlatIP(width))


def _has_gpu(faiss: Any) -> bool:
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def _inverted_lists(faiss: Any, rows: Floats) -> Any:
    lists = min(len(rows), int(LISTS_PER_ROOT * len(rows) ** 0.5))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(rows.shape[1]), rows.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.min_points_per_centroid = TRAINING_ROUNDS, 1
    # Every k-th row, so that all of the clip is in the sample; FAISS would draw at random from too many.
    step = max(1, len(rows) // (TRAINING_ROWS_PER_LIST * lists))
    index.train(rows[::step])
    index.nprobe = PROBES
    return index
