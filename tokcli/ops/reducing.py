"""Fewer tokens inside a vision tower: what a method says of it, and what it is given in a block.

A tower's rows are what a token of the language model is made of: a patch, or the square of patches that a merger joins.
They are reduced frame by frame, frames beside each other in a batch; nothing here knows of models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from tokcli.ops.block_attention import BlockAttention
from tokcli.ops.matching import Merging

PLACELESS = "placeless"
"""The bool (B, T) memory of rows that stand for no place and are not given out, as a fusion of dropped ones."""


PROTECTED = "protected"
"""The bool (B, T) memory of rows that a later stage should spare, a signal of that name beside the tokens."""


@dataclass(frozen=True)
class TowerShape:
    """What a method has to work with in a tower."""

    depth: int
    """Blocks of the tower."""
    blocks: tuple[int, ...]
    """Those in which rows may be reduced, ascending: they run, and they attend to whole frames."""
    grid: tuple[int, int]
    """(H', W') rows of a frame."""
    leading: int
    """1 where a [CLS] row stands before them, else 0."""
    stands: torch.Tensor | None = None
    """int64 (N,): where each row of a frame, line by line, stands among them; None if they are in that order."""
    steps: int | None = 1
    """Temporal steps of the item, each with a frame's rows; None where no item is known yet."""

    @property
    def rows(self) -> int:
        """N, [CLS] not counted."""
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class Step:
    """Fewer rows, and what became of those before."""

    states: torch.Tensor
    """(B, T', W)."""
    rows: torch.Tensor
    """int64 (B, T'): the row before whose place each has."""
    into: torch.Tensor
    """int64 (B, T): the row that each before went into, -1 for dropped."""
    memory: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """(B, T') values to remember of the rows, in place of what was remembered."""
    shares: torch.Tensor | None = None
    """float32 (B, T), from a method on a block's input: the block's attention is that of the rows before, and this much
    of what each gets goes to the row that it went into. A row that was fused is attended to by what each part of it
    got. None where attention is computed of the rows that are left."""

    @property
    def fused(self) -> torch.Tensor:
        """bool (B, T'): which rows are made of several."""
        return torch.zeros_like(self.rows).scatter_add_(1, self.into, torch.ones_like(self.into)) > 1

    @classmethod
    def merged(cls, merging: Merging) -> Step:
        """``merging`` must have been started with the rows before."""
        return cls(merging.tokens, merging.anchors, merging.labels)

    @classmethod
    def selected(cls, states: torch.Tensor, rows: torch.Tensor) -> Step:
        """Nothing but ``rows``, int64 (B, T'), in that order."""
        into = rows.new_full(states.shape[:2], -1)
        into.scatter_(1, rows, torch.arange(rows.shape[1], device=rows.device).expand_as(rows))
        return cls(states.gather(1, rows.unsqueeze(2).expand(-1, -1, states.shape[2])), rows, into)


def averaged(values: torch.Tensor, rows: torch.Tensor, into: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """(B, T', W): of ``values`` (B, T, W) the sums of what went into each row, weighed by ``shares`` (B, T).

    ``rows`` and ``into`` are those of a :class:`Step` that drops nothing.
    """
    batch, length, width = values.shape
    frames = torch.arange(batch, device=values.device).unsqueeze(1)
    stays = torch.zeros((batch, length), dtype=torch.bool, device=values.device).scatter_(1, rows, True)
    moved = torch.nonzero(~stays.flatten()).flatten()
    left = (rows + frames * length).flatten()
    flat, weights = values.reshape(-1, width), shares.reshape(-1, 1).to(values.dtype)
    total = flat.index_select(0, left).mul_(weights[left])
    target = (into + frames * rows.shape[1]).flatten()[moved]
    return total.index_add_(0, target, flat.index_select(0, moved).mul_(weights[moved])).view(batch, -1, width)


@dataclass(frozen=True)
class Rows:
    """The rows of B frames on their way through a tower."""

    states: torch.Tensor
    """(B, T, W) in the tower's dtype; W holds all patches of a row."""
    sizes: torch.Tensor
    """float32 (B, T): how many of the rows at first each stands for."""
    anchors: torch.Tensor
    """int64 (B, T): which of the N at first gives each its place; -1 for [CLS]."""
    labels: torch.Tensor
    """int64 (B, N): which row each at first went into, -1 for dropped."""
    leading: int = 0
    """1 where the first row is [CLS]."""
    memory: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """(B, T) values that a method remembers from block to block."""
    merged: bool = False
    """Whether any size may differ from 1."""

    @classmethod
    def start(cls, states: torch.Tensor, leading: int) -> Rows:
        batch, length, _ = states.shape
        positions = torch.arange(length, device=states.device).expand(batch, -1)
        sizes = torch.ones((batch, length), device=states.device)
        return cls(states, sizes, positions - leading, positions[:, leading:], leading)

    def reduced(self, step: Step, merges: bool) -> Rows:
        """The rows after a step."""
        went = step.into >= 0
        sizes = self.sizes.new_zeros(step.rows.shape)
        sizes.scatter_add_(1, step.into.clamp_min(0), torch.where(went, self.sizes, 0.0))
        labels = torch.where(self.labels < 0, -1, step.into.gather(1, self.labels.clamp_min(0)))
        memory = {name: values.gather(1, step.rows) for name, values in self.memory.items()} | dict(step.memory)
        anchors = self.anchors.gather(1, step.rows)
        return Rows(step.states, sizes, anchors, labels, self.leading, memory, self.merged or merges)

    def ordered(self, order: torch.Tensor) -> Rows:
        """Some or all of the rows, in the order of int64 (B, T'); what is left out counts as dropped."""
        return self.reduced(Step.selected(self.states, order), merges=self.merged)


Act = Callable[[Rows, BlockAttention], Step | None]
"""What a method does in a block; None where there is nothing to do."""


@dataclass(frozen=True)
class InTower:
    """A method inside a vision tower."""

    plan: Callable[[TowerShape], Mapping[int, Act]]
    """What it does in which blocks; raises :class:`MethodError` for what that tower or frame can't be made to give."""
    when: Literal["input", "attention", "output"] = "attention"
    """Where in a block: before it, between attention and MLP, or behind it. Only in the second place does the block's
    attention tell what the rows are; in the first it is what the rows will be given."""
    proportional: bool = False
    """Whether rows get attention in proportion to what they stand for: ln(size) on the columns of all later blocks."""
    merges: bool = True
    """Whether rows become part of others, or are kept and dropped."""
    by_content: bool = False
    """Whether frames may be left with unlike numbers of rows, so that each must be encoded alone."""
    protect: Callable[[Rows, BlockAttention], torch.Tensor] | None = None
    """Which of the rows that are left a later stage should spare, bool (B, T): by the attention of the tower's last
    block that sees whole frames, also where the features come from one before it. None for methods that don't say."""
