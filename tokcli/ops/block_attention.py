"""What a method may want to know of a block's attention, computed when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

NUMBERS_AT_ONCE = 1 << 20
"""Of an attention, computed by some queries after others: 4 MiB in float32, which an allocator gives out again."""
LEAST_QUERIES = 64
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
        if self._held is None:
            return self._share(self.query)
        return self._by_frame(self._held[1], self.query.shape[2])

    def attended(self, values: torch.Tensor) -> torch.Tensor:
        """(B, H, R, d): what all rows get where ``values`` (B, H, R, d) stand in the place of the block's own.

        Cheap after ``received``: the fast attention of a processor is slower than the products by themselves.
        """
        if self._held is None:
            attention = torch.nn.functional.scaled_dot_product_attention
            return attention(self.query, self.key, values, attn_mask=self.bias, scale=self.scale)
        return self._held[0].to(values.dtype) @ values

    @cached_property
    def _held(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """All of the attention, float32 (B, H, R, R), and its sums over queries (B, H, R), if it is small enough."""
        batch, heads, rows, _ = self.query.shape
        if batch * heads * rows**2 > NUMBERS_HELD:
            return None
        query, key = self.query.float() * self.scale, self.key.float().transpose(2, 3)
        # In one place and nowhere else: pages that an allocator has to fetch again cost more than the arithmetic.
        held, columns = query.new_empty((batch, heads, rows, rows)), query.new_empty((batch, heads, rows))
        for frame in range(batch):
            for head in range(heads):
                logits = held[frame, head]
                torch.matmul(query[frame, head], key[frame, head], out=logits)
                if self.bias is not None:
                    logits += self.bias[frame, 0]
                torch.softmax(logits, dim=-1, out=logits)
                torch.sum(logits, dim=0, out=columns[frame, head])
        return held, columns

    def _share(self, query: torch.Tensor) -> torch.Tensor:
        columns = torch.stack([part.sum(dim=2) for part in self._softmax(query)]).sum(dim=0)
        return self._by_frame(columns, query.shape[2])

    def _by_frame(self, columns: torch.Tensor, queries: int) -> torch.Tensor:
        """(B, T) of sums over queries (B, H, R): the mean over heads and queries, the sum over the patches of a row."""
        return (columns.mean(dim=1) / queries).unflatten(1, (-1, self.unit)).sum(dim=2)

    def _softmax(self, query: torch.Tensor) -> Iterator[torch.Tensor]:
        key = self.key.float().transpose(2, 3)
        at_once = max(LEAST_QUERIES, NUMBERS_AT_ONCE // (query.shape[0] * query.shape[1] * key.shape[3]))
        for run in (query.float() * self.scale).split(at_once, dim=2):
            logits = run @ key
            yield torch.softmax(logits if self.bias is None else logits + self.bias.float(), dim=-1)

    def _by_row(self, values: torch.Tensor) -> torch.Tensor:
        return values if self.unit == 1 else values.unflatten(2, (-1, self.unit)).mean(dim=3)
