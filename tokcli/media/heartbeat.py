"""A count that grows with every packet read, frame decoded and block hashed: who watches from outside sees a hang."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_count: npt.NDArray[np.uint64] = np.zeros(1, np.uint64)


def beat() -> None:
    """Something was done."""
    _count[0] += np.uint64(1)


def beat_in(counter: npt.NDArray[np.uint64]) -> None:
    """Count in uint64 (1,) ``counter`` from here on, for example in memory that another process reads."""
    global _count  # one process decodes one file at a time
    _count = counter
