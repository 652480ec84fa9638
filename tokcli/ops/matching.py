"""Bipartite matching of tokens, as in ToMe (arXiv:2210.09461), and merging along it, in batches of equal lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from tokcli.ops.selection import largest
from tokcli.ops.similarity import norms

ENTRIES_AT_A_TIME = 1 << 24
"""Bound on the similarities held at once: 64 MiB in float32."""


@dataclass(frozen=True)
class Matching:
    """Which tokens of (B, n) lists go into which others; all are int64 positions in the list."""

    merged: torch.Tensor
    """(B, r): sources that merge, the most similar first."""
    targets: torch.Tensor
    """(B, r): the destination of each."""
    unmerged: torch.Tensor
    """(B, s - r): sources that stay, the most similar first."""
    destinations: torch.Tensor
    """(B, n - s): ascending."""
    protected: int = 0
    """How many of the first tokens never merge."""

    def official_order(self) -> torch.Tensor:
        """(B, n - r): the tokens that are left as ToMe puts them; where nothing merged, in the order that they had.

        Sources by similarity before all destinations; with one protected token, sources in the order that they had;
        with two, these two before all others.
        """
        if self.merged.shape[1] == 0:
            return self.list_order()
        if self.protected == 0:
            return torch.cat([self.unmerged, self.destinations], dim=1)
        order = self.sources_first()
        if self.protected == 1:
            return order
        sources = self.unmerged.shape[1]
        return torch.cat(
            [order[:, :1], order[:, sources : sources + 1], order[:, 1:sources], order[:, sources + 1 :]], 1
        )

    def sources_first(self) -> torch.Tensor:
        """(B, n - r): the sources that are left in the order that they had, before all destinations."""
        return torch.cat([self.unmerged.sort(dim=1).values, self.destinations], dim=1)

    def list_order(self) -> torch.Tensor:
        """(B, n - r): the tokens that are left in the order that they had."""
        return self.sources_first().sort(dim=1).values


def bipartite_matching(
    metric: torch.Tensor,
    r: int,
    first_source: int = 0,
    *,
    protected: int = 0,
    penalty: torch.Tensor | None = None,
) -> Matching:
    """Match every second token with the most similar of the others; the ``r`` most similar pairs merge.

    ``metric``: (B, n, d) float32. ``first_source``: 0 if sources are at even positions, 1 if at odd ones. At most the
    smaller half merges. Similarity is the cosine; ties go to the lowest position, of destinations and of sources.

    ``protected``: how many of the first tokens neither merge nor receive, 0 to 2, e.g. [CLS] and a distillation
    token; at most half of the others merges then. The first one is a source and the second a destination: with
    ``first_source`` 0. ``penalty``: (B, n) float32, what is taken off the similarity of a source's pair.
    """
    batch, length, _ = metric.shape
    positions = torch.arange(length, device=metric.device)
    sources, destinations = positions[first_source::2], positions[1 - first_source :: 2]
    r = max(0, min(r, (length - protected) // 2))
    if r == 0:
        values = metric.new_zeros(batch, len(sources))
        best = values.to(torch.int64)
    else:
        values, best = _best(metric, first_source, first_allowed=protected // 2)
        if penalty is not None:
            values = values - penalty[:, first_source::2]
        if protected:
            values[:, 0] = -torch.inf
    order = torch.sort(values, dim=1, descending=True, stable=True).indices
    chosen = order[:, :r]
    return Matching(
        merged=sources[chosen],
        targets=destinations[best.gather(1, chosen)] if r else chosen,
        unmerged=sources[order[:, r:]],
        destinations=destinations.expand(batch, -1),
        protected=protected,
    )


def _best(metric: torch.Tensor, first_source: int, first_allowed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The cosine of each source with its most similar destination, and which that is: (B, s) each.

    ``first_allowed``: the first destination that may receive.
    """
    sources, destinations = metric[:, first_source::2], metric[:, 1 - first_source :: 2][:, first_allowed:]
    lengths = norms(metric)
    # Products are scaled instead of tokens, and by the lengths of the sources once the best is known.
    scale = 1 / lengths[:, None, 1 - first_source :: 2][:, :, first_allowed:]
    rows = max(1, ENTRIES_AT_A_TIME // (destinations.shape[0] * destinations.shape[1]))
    values, best = zip(
        *(largest(torch.bmm(some, destinations.mT).mul_(scale), dim=2) for some in sources.split(rows, dim=1))
    )
    return torch.cat(values, dim=1) / lengths[:, first_source::2], torch.cat(best, dim=1) + first_allowed


def every_kth_matching(metric: torch.Tensor, k: int) -> Matching:
    """Match the first k - 1 of every k tokens with the most similar of the last ones; all of them merge.

    ``metric``: (B, n, d) float32, n a multiple of ``k``, k at least 2. What is left are n / k tokens.
    """
    batch, length, _ = metric.shape
    positions = torch.arange(length).view(-1, k)
    sources, destinations = positions[:, :-1].flatten(), positions[:, -1]
    lengths = norms(metric)
    scaled = metric[:, destinations] / lengths[:, destinations, None]
    rows = max(1, ENTRIES_AT_A_TIME // (batch * len(destinations)))
    parts = [torch.bmm(metric[:, some], scaled.transpose(1, 2)).argmax(dim=2) for some in sources.split(rows)]
    return Matching(
        merged=sources.expand(batch, -1),
        targets=destinations[torch.cat(parts, dim=1)],
        unmerged=torch.zeros((batch, 0), dtype=torch.int64),
        destinations=destinations.expand(batch, -1),
    )


@dataclass(frozen=True)
class Merging:
    """Tokens of B lists on the way from many to few, and what went into each."""

    tokens: torch.Tensor
    """float32 (B, n, D)."""
    sizes: torch.Tensor
    """float32 (B, n): how many tokens each stands for."""
    anchors: torch.Tensor
    """int64 (B, n): the position, in the list at first, of the token whose place each has."""
    labels: torch.Tensor
    """int64 (B, N): into which of the n tokens each of the N at first went."""

    @classmethod
    def start(cls, tokens: torch.Tensor, sizes: torch.Tensor | None = None) -> Merging:
        """Nothing merged yet: ``tokens`` is (B, N, D) float32; ``sizes`` is float32 (B, N), ones if not given."""
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2])
        return cls(tokens, torch.ones_like(positions).float() if sizes is None else sizes, positions, positions)

    @classmethod
    def join(cls, parts: Sequence[Merging]) -> Merging:
        """One list of several, batch by batch; positions count on."""
        starts = [0, *accumulate(part.labels.shape[1] for part in parts)]
        firsts = [0, *accumulate(part.tokens.shape[1] for part in parts)]
        return cls(
            tokens=torch.cat([part.tokens for part in parts], dim=1),
            sizes=torch.cat([part.sizes for part in parts], dim=1),
            anchors=torch.cat([part.anchors + start for part, start in zip(parts, starts)], dim=1),
            labels=torch.cat([part.labels + first for part, first in zip(parts, firsts)], dim=1),
        )

    def apply(self, matching: Matching, order: torch.Tensor, *, by_size: bool = True) -> Merging:
        """Merge along a matching of these tokens and put what is left into ``order``, int64 (B, n - r).

        Tokens are weighed by how many they stand for, or else all alike.
        """
        batch, length, width = self.tokens.shape
        device = self.tokens.device
        offsets = torch.arange(batch, device=device).unsqueeze(1) * length
        flat, sizes = self.tokens.reshape(-1, width), self.sizes.reshape(-1)
        merged, targets = (matching.merged + offsets).flatten(), (matching.targets + offsets).flatten()
        left = (order + offsets).flatten()
        rank = torch.empty(batch * length, dtype=torch.int64, device=device)
        rank[left] = torch.arange(len(left), device=device)
        into = rank[targets]
        weights = sizes if by_size else torch.ones_like(sizes)
        totals = weights[left].index_add_(0, into, weights[merged])
        # What receives nothing is multiplied and divided by 1, and so stays as it is, bit by bit.
        receives = torch.zeros_like(left, dtype=torch.bool).index_fill_(0, into, True)
        scale, totals = torch.where(receives, weights[left], 1.0), torch.where(receives, totals, 1.0)
        tokens, sources = flat.index_select(0, left), flat.index_select(0, merged)
        if bool((weights != 1).any()):
            tokens.mul_(scale.unsqueeze(1))
            sources.mul_(weights[merged].unsqueeze(1))
        tokens.index_add_(0, into, sources).div_(totals.unsqueeze(1))
        moved = torch.zeros(batch, length, dtype=torch.int64, device=device)
        moved.scatter_(1, order, torch.arange(order.shape[1], device=device).expand_as(order))
        moved.scatter_(1, matching.merged, moved.gather(1, matching.targets))
        return Merging(
            tokens=tokens.view(batch, -1, width),
            sizes=sizes.index_add(0, targets, sizes[merged])[left].view(batch, -1),
            anchors=self.anchors.gather(1, order),
            labels=moved.gather(1, self.labels),
        )

    def unmerge(self, values: torch.Tensor) -> torch.Tensor:
        """Give every token at first the value of the one that it went into: (B, N, ...), of (B, n, ...) values."""
        return torch.stack([some[labels] for some, labels in zip(values, self.labels)])

    def sources(self) -> torch.Tensor:
        """bool (B, n, N): which of the tokens at first went into which."""
        came = torch.zeros((*self.tokens.shape[:2], self.labels.shape[1]), dtype=torch.bool)
        return came.scatter_(1, self.labels.unsqueeze(1), True)
