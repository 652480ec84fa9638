"""A byte for every few numbers, by a codebook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tokcli.cache.codebook import Codebook
from tokcli.cache.codec import Codec, Count, not_finite, runs
from tokcli.cache.tensors import Bytes
from tokcli.errors import CacheError, UsageError

if TYPE_CHECKING:
    import torch

CODED_AT_A_TIME = 1 << 15
"""Converted at once: a codebook compares every part of a vector with 256 centroids."""


@dataclass(frozen=True)
class QuantizerCodec(Codec):
    """A byte for every few numbers, by a codebook."""

    name: str
    numbers_per_code: int
    codebook: Codebook | None = None
    """Without one it knows sizes only."""
    dtype = "float16"
    lossy = True

    def num_bytes(self, rows: Count, width: int) -> Count:
        return rows * -(-width // self.numbers_per_code)

    def encode(self, tokens: torch.Tensor) -> npt.NDArray[np.uint8]:
        import torch

        codebook = self._known()
        if tokens.shape[1] != codebook.width:
            raise UsageError(
                f"tokens have {tokens.shape[1]} numbers, the codebook is for {codebook.width}: it is another model's"
            )
        if not bool(torch.isfinite(tokens).all()):
            raise not_finite(self.name)
        parts = [codebook.encode(some.float().numpy()) for _, some in runs(tokens, CODED_AT_A_TIME)]
        return np.concatenate(parts).reshape(-1) if parts else np.empty(0, np.uint8)

    def decode(self, content: Bytes, width: int) -> torch.Tensor:
        import torch

        codes = np.frombuffer(content, np.uint8).reshape(-1, -(-width // self.numbers_per_code))
        decoded = torch.empty((len(codes), width), dtype=torch.float16)
        for start, some in runs(decoded):
            some.copy_(torch.from_numpy(self._known().decode(codes[start : start + len(some)])))
        return decoded

    def _known(self) -> Codebook:
        if self.codebook is None:
            raise CacheError(
                f"tokens stored as {self.name} are read with the codebook of their cache; open it as a whole"
            )
        return self.codebook
