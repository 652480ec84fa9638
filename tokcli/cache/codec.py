"""What a codec is: how the tokens of a row become bytes and come back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from tokcli.cache.tensors import Bytes
from tokcli.errors import UsageError

if TYPE_CHECKING:
    import torch

NUMBERS_AT_A_TIME = 1 << 19
"""Converted at once: enough that calls cost little, and 2 MiB of float32 in memory that is used again and again."""


Count = TypeVar("Count", int, npt.NDArray[np.int64])


class Codec(ABC):
    """Turns (N, D) tokens to bytes and back."""

    name: str
    dtype: str
    """What decoding gives."""
    lossy: bool

    @abstractmethod
    def num_bytes(self, rows: Count, width: int) -> Count:
        """Of (rows, width) tokens, or of as many such as there are numbers of rows."""

    @abstractmethod
    def encode(self, tokens: torch.Tensor) -> npt.NDArray[np.uint8]:
        """uint8 (n,) of float (N, D). Raises ``UsageError`` for values that it can't hold."""

    @abstractmethod
    def decode(self, content: Bytes, width: int) -> torch.Tensor:
        """(N, width) of the codec's dtype. May share the memory of ``content``: clone before it is given away."""


def not_finite(name: str) -> UsageError:
    return UsageError(
        f"tokens that are infinite or not a number can't be stored as {name}; store them as they are with "
        "--codec exact, or find out why the tower gave them"
    )


def rows_at_a_time(width: int, numbers: int = NUMBERS_AT_A_TIME) -> int:
    return max(1, numbers // max(1, width))


def runs(tokens: torch.Tensor, numbers: int = NUMBERS_AT_A_TIME) -> Iterator[tuple[int, torch.Tensor]]:
    """Some rows after others, with the number of the first."""
    start = 0
    for some in tokens.split(rows_at_a_time(tokens.shape[1], numbers)):
        yield start, some
        start += len(some)
