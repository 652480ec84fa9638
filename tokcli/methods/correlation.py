"""Compression by correlation: fewer tokens of pictures whose patches repeat."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from tokcli.methods.base import Stats, Stream, method
from tokcli.methods.budget import Budgeted
from tokcli.methods.importance import ImportanceOptions, importance_of, importance_signals
from tokcli.methods.options import SeededOptions
from tokcli.methods.output import select
from tokcli.methods.tiles import tiled_steps
from tokcli.ops.diversity import unit_of
from tokcli.ops.selection import top_k
from tokcli.types import TokenSet, View, VisualTokens

KEYS = "head_mean_keys"
ENTRIES_AT_A_TIME = 1 << 22


class CorrelationOptions(ImportanceOptions, SeededOptions, Budgeted):
    threshold: float = Field(
        default=0.7, ge=-1, le=1, description="Cosine of two tokens' keys above which they are partners."
    )
    partners: int = Field(default=8, ge=1, description="Number of partners from which on a token is redundant.")
    least: int = Field(default=16, ge=1, description="Tokens that every picture keeps, if it has as many.")


class Correlated:
    """Keeps as many tokens of each picture as are not redundant."""

    def __init__(self, options: CorrelationOptions, generator: np.random.Generator) -> None:
        self._options = options
        self._generator = generator

    def push(self, chunk: VisualTokens) -> TokenSet:
        keep = torch.zeros(len(chunk), dtype=torch.bool)
        importance, keys = importance_of(chunk, self._options), chunk.signals[KEYS]
        for step in tiled_steps(chunk):
            for tile in step.tiles:
                redundant = partners_of(unit_of(keys, tile.rows), self._options.threshold) >= self._options.partners
                total = len(redundant)
                count = min(total, max(self._options.least, total - int(redundant.sum())))
                keep[tile.rows[self._drawn(importance[tile.rows], count)]] = True
        return select(chunk, keep)

    def finish(self) -> Stats:
        return {}

    def _drawn(self, importance: torch.Tensor, count: int) -> torch.Tensor:
        """Half of ``count`` positions by importance, the others drawn in proportion to it: int64 (count,)."""
        order = top_k(importance, len(importance))
        best, others = order[: count - count // 2], order[count - count // 2 :]
        if not count // 2:
            return best
        weights = (importance[others] - importance.min().clamp_max(0)).double().numpy()
        # None is impossible, or there might be fewer than are to be drawn.
        weights = weights + 1e-9 * max(weights.max(), 1e-9)
        drawn = self._generator.choice(len(others), count // 2, replace=False, p=weights / weights.sum())
        return torch.cat([best, others[torch.from_numpy(drawn)]])


@method(
    "correlation",
    options=CorrelationOptions,
    kind="select",
    count="by content",
    paper="arXiv:2407.14439",
    streaming=True,
    needs={KEYS},
    needs_from=importance_signals,
    code="JiuTian-VL/TokenCorrCompressor, without code",
    licence="Apache-2.0, of the model that it is for",
    experimental="the authors published no code and the definition follows the paper's summary, with four constants of "
    "ours: low confidence, and nothing to compare with",
)
def correlation(options: CorrelationOptions, views: tuple[View, ...], generator: np.random.Generator) -> Stream:
    """Keep as many tokens of each picture as do not repeat, the important ones among them.

    A token is redundant if the keys of ``partners`` others of its picture are like its own. A picture keeps as many
    tokens as are not redundant: half of them those that matter most, the others drawn in proportion to their
    importance. The paper takes the attention of [CLS], ``importance=cls``. The draw depends on the seed and the item's
    id alone. Each frame of a video, still, thumbnail and tile is a picture of its own.
    """
    return Correlated(options, generator)


def partners_of(unit: torch.Tensor, threshold: float) -> torch.Tensor:
    """How many other rows have a product above ``threshold`` with each of (n, d) unit vectors: int64 (n,)."""
    counts = []
    for rows in torch.arange(len(unit)).split(max(1, ENTRIES_AT_A_TIME // len(unit))):
        near = unit[rows] @ unit.T > threshold
        near[torch.arange(len(rows)), rows] = False
        counts.append(near.sum(dim=1))
    return torch.cat(counts)
