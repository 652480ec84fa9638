"""What a method may want to know of a block's attention, computed when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

QUERIES_AT_ONCE = 256
NUMBERS_HELD = 1 << 26
"""Of an attention that is needed twice: 256 MiB in float32. A larger one is computed twice."""


@dataclass(frozen=True)
class BlockAttention:
    """Queries, keys and values of B frames in one block; ``unit`` neighbours of the R patches make a row."""

    query: torch.Tensor
    """(B, H, R, d), with rotary positions where the tower has them."""
    key: torch.Tensor
    """(B, H, R, d), likewise."""
    value: torch.Tensor
    """(B, H, R, d)."""
    plain_key: torch.Tensor
    """(B, H, R, d): keys before positions."""
    scale: float
    bias: torch.Tensor | None = None
    """(B, 1, 1, R): what is added to the logits of each column, in proportional attention."""
    unit: int = 1
    leading: int = 0

    def keys(self) -> torch.Tensor:
        """float32 (B, T, d): mean of the heads' keys, and of the row's patches, without positions."""
        return self._by_row(self.plain_key.float().mean(dim=1, keepdim=True)).squeeze(1)

    def values(self) -> torch.Tensor:
        """float32 (B, H, T, d): mean over the row's patches."""
        return self._by_row(self.value.float())

    def importance(self) -> torch.Tensor:
        """float32 (B, T), a share of 1: what [CLS] attends to, or what all rows do where there is none; head mean.

        A row of several patches has the sum of theirs.
        """
        return self._share(self.query[:, :, :1] if self.leading else self.query)

    def of_mean_query(self) -> torch.Tensor:
        """float32 (B, T): the same for the mean of all queries in place of [CLS]."""
        return self._share(self.query.float().mean(dim=2, keepdim=True))

    def received(self) -> torch.Tensor:
        """float32 (B, T), a share of 1: what all rows attend to, [CLS] among them; head mean."""
        return self._mean(self._softmax(self.query) if self._held is None else iter(self._held))

    def attended(self, values: torch.Tensor) -> torch.Tensor:
        """(B, H, R, d): what all rows get where ``values`` (B, H, R, d) stand in the place of the block's own.

        Cheap after ``received``: the fast attention of a processor is slower than the products by themselves.
        """
        if self._held is None:
            attention = torch.nn.functional.scaled_dot_product_attention
            return attention(self.query, self.key, values, attn_mask=self.bias, scale=self.scale)
        return torch.cat([part.to(values.dtype) @ values for part in self._held], dim=2)

    @cached_property
    def _held(self) -> list[torch.Tensor] | None:
        """All of the attention, float32 (B, H, some, R) each, if it is small enough."""
        numbers = self.query.shape[0] * self.query.shape[1] * self.query.shape[2] ** 2
        return None if numbers > NUMBERS_HELD else list(self._softmax(self.query))

    def _share(self, query: torch.Tensor) -> torch.Tensor:
        return self._mean(self._softmax(query))

    def _mean(self, attention: Iterator[torch.Tensor]) -> torch.Tensor:
        """(B, T): over heads and queries, added up over the patches of a row."""
        queries, columns = 0, torch.zeros(())
        for part in attention:
            queries, columns = queries + part.shape[2], columns.to(part.device) + part.sum(dim=2)
        return (columns.mean(dim=1) / queries).unflatten(1, (-1, self.unit)).sum(dim=2)

    def _softmax(self, query: torch.Tensor) -> Iterator[torch.Tensor]:
        key = self.key.float().transpose(2, 3)
        for run in (query.float() * self.scale).split(QUERIES_AT_ONCE, dim=2):
            logits = run @ key
            yield torch.softmax(logits if self.bias is None else logits + self.bias.float(), dim=-1)

    def _by_row(self, values: torch.Tensor) -> torch.Tensor:
        return values if self.unit == 1 else values.unflatten(2, (-1, self.unit)).mean(dim=3)
