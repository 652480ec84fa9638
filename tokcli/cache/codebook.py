"""The codebook of a product quantizer: what the codes of a cache's tokens stand for, in a file of the cache.

A vector is cut into parts of a few numbers; of each part the number of the nearest of 256 centroids is kept (Jégou,
Douze and Schmid, "Product quantization for nearest neighbor search", 2011). Centroids are found by k-means (FAISS) on a
sample of the tokens.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from tokcli.cache.atomic import write_atomically
from tokcli.cache.manifest import Manifest
from tokcli.errors import CacheError, IntegrityError, UsageError
from tokcli.storage import Location

FILE = "codebook.npy"
KEY = "codebook"
"""Of the manifest's configuration: the codebook's digest."""
CENTROIDS = 256
TRAINING_VECTORS = 64 * CENTROIDS
"""Most vectors to train on; FAISS wants 39 for each centroid."""
LEAST_VECTORS = 39 * CENTROIDS
_WHOLE = {4: np.int64, 8: np.complex128}


@dataclass(frozen=True, eq=False)
class Codebook:
    """Centroids of the parts of a vector."""

    centroids: npt.NDArray[np.float32]
    """float32 (M, 256, d), little-endian: M parts of d numbers each."""

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self.centroids.shape[0] * self.centroids.shape[2])

    @cached_property
    def content(self) -> bytes:
        """The file's bytes: NumPy's own format, without pickle."""
        buffer = io.BytesIO()
        np.save(buffer, self.centroids, allow_pickle=False)
        return buffer.getvalue()

    @cached_property
    def digest(self) -> str:
        """blake3 of the file, 64 hex digits."""
        return blake3(self.content).hexdigest()

    def encode(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """uint8 (n, M) of float32 (n, M * d): the nearest centroid of each part."""
        codes: npt.NDArray[np.uint8] = self._quantizer.compute_codes(np.ascontiguousarray(vectors, np.float32))
        return codes

    @cached_property
    def _quantizer(self) -> Any:
        import faiss

        parts, _, _ = self.centroids.shape
        quantizer = faiss.ProductQuantizer(self.width, parts, 8)
        faiss.copy_array_to_vector(self.centroids.ravel(), quantizer.centroids)
        return quantizer

    def decode(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """float16 (n, M * d) of uint8 (n, M)."""
        parts, count, _ = self.centroids.shape
        found = self._whole.take(codes + np.arange(parts, dtype=np.int32) * count)
        return found.view(np.float16).reshape(len(codes), -1)

    @cached_property
    def _whole(self) -> npt.NDArray[Any]:
        """Every centroid in float16 as one number of its size: looked up many times as fast as rows of a matrix."""
        _, _, size = self.centroids.shape
        return self.centroids.astype("<f2").reshape(-1, size).view(_WHOLE[size]).reshape(-1)

    def save(self, cache: Location) -> None:
        """Write it into a cache's folder, atomically."""
        write_atomically(cache / FILE, self.content)


def train(vectors: npt.NDArray[np.float32], numbers_per_code: int) -> Codebook:
    """Make a codebook from float32 (n, W) vectors, of parts of ``numbers_per_code`` numbers each.

    Deterministic. Raises ``UsageError`` where W can't be cut so, or there are too few vectors.
    """
    import faiss

    count, width = vectors.shape
    if numbers_per_code not in _WHOLE:
        raise ValueError(f"parts have {' or '.join(map(str, _WHOLE))} numbers, not {numbers_per_code}")
    if width % numbers_per_code:
        raise UsageError(
            f"vectors of {width} numbers can't be cut in parts of {numbers_per_code}; take another of the pq codecs"
        )
    if count < LEAST_VECTORS:
        raise UsageError(
            f"a codebook is trained on {LEAST_VECTORS:,} vectors at least, there are {count:,}; derive from a cache of "
            "more items, take --codec int8, or reuse the codebook of another cache with --codebook"
        )
    quantizer = faiss.ProductQuantizer(width, width // numbers_per_code, 8)
    quantizer.train(np.ascontiguousarray(vectors, np.float32))
    centroids = faiss.vector_to_array(quantizer.centroids).reshape(-1, CENTROIDS, numbers_per_code)
    return Codebook(np.ascontiguousarray(centroids, "<f4"))


def codebook_of(cache: Location, manifest: Manifest) -> Codebook | None:
    """The codebook that a cache's manifest names, None where it names none. Raises what ``load_codebook`` does."""
    digest = manifest.configuration.get(KEY)
    return None if digest is None else load_codebook(cache, str(digest))


def load_codebook(cache: Location, digest: str) -> Codebook:
    """The codebook of a cache. Raises ``CacheError`` where it is missing, ``IntegrityError`` where it is another."""
    path = cache / FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CacheError(
            f"{path} is missing, without which the tokens of {cache} can't be read; restore it from a copy of the cache"
        ) from None
    except OSError as error:
        raise CacheError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    if blake3(content).hexdigest() != digest:
        raise IntegrityError(f"{path} is not the codebook that the cache was written with; restore it from a copy")
    centroids = np.load(io.BytesIO(content), allow_pickle=False)
    if (
        centroids.ndim != 3
        or centroids.shape[1] != CENTROIDS
        or centroids.shape[2] not in _WHOLE
        or centroids.dtype != np.dtype("<f4")
    ):
        raise IntegrityError(f"{path} holds no codebook; restore it from a copy")
    return Codebook(centroids)
