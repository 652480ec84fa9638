"""A vision tower run block by block, with a method inside that leaves fewer rows after some of the blocks.

Every family's tower is the same to the loop here: something that norms, projects to heads, rotates, and so on. Where
nothing is left out, the result is what the family's own code computes, bit for bit: by a plan without steps, tokens are
those of a plain run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from tokcli.errors import ModelError
from tokcli.ops.block_attention import BlockAttention
from tokcli.ops.reducing import PLACELESS, PROTECTED, Act, InTower, Rows, Step, TowerShape, averaged

Protect = Callable[[Rows, BlockAttention], torch.Tensor]


class TowerBlocks:
    """A tower taken apart, for frames of one grid. One subclass for each kind of tower."""

    leading = 0
    """1 where [CLS] stands before the patches."""
    unit = 1
    """Patches of a row, which lie beside each other."""
    order: torch.Tensor | None = None
    """int64 (N,): which row of the frame, line by line, stands where; None if all stand where they belong."""

    def __init__(self, depth: int, run: int, grid: tuple[int, int], whole: tuple[int, ...] | None = None) -> None:
        """``run`` is how many of the blocks make the features, ``whole`` those that attend to whole frames."""
        self.run = run
        stands = None if self.order is None else torch.argsort(self.order)
        self.shape = TowerShape(depth, tuple(range(run)) if whole is None else whole, grid, self.leading, stands)

    def embed(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, R, C), what goes into the first block, of uint8 (n, h, w, 3) frames."""
        raise NotImplementedError

    def heads(self, block: int, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values (B, H, R, d) of the block's input, normed on the way."""
        raise NotImplementedError

    def values(self, block: int, states: torch.Tensor) -> torch.Tensor:
        """The last of ``heads`` alone."""
        raise NotImplementedError

    def rotate(self, values: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
        """(B, H, R, d) with the positions of the rows whose places are ``anchors``, int64 (B, T)."""
        return values

    def scale(self, block: int) -> float:
        """What the block multiplies its logits with."""
        raise NotImplementedError

    def segments(self, block: int, anchors: torch.Tensor) -> list[int] | None:
        """Patches that see each other, frame by frame in order; None where whole frames do."""
        return None

    def leave(self, block: int, attended: torch.Tensor) -> torch.Tensor:
        """What the block's attention adds, of the heads' results (B, R, C)."""
        raise NotImplementedError

    def mlp(self, block: int, states: torch.Tensor) -> torch.Tensor:
        """What the block's MLP adds, normed on the way."""
        raise NotImplementedError

    def project(self, states: torch.Tensor) -> torch.Tensor:
        """Tokens (n, D) of rows (n, unit * C)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Left:
    """What is left of B frames, rows in the order of the grid."""

    tokens: torch.Tensor
    """(K, D)."""
    source: torch.Tensor
    """int64 (K,): the row of the B * N that gives each its place."""
    mass: torch.Tensor
    """float32 (K,)."""
    assignment: torch.Tensor
    """int64 (B * N,): into which of the K each went, -1 for dropped."""
    protected: torch.Tensor | None = None
    """bool (K,): which of them a later stage should spare; None where the method doesn't say."""


def encode_inside(tower: TowerBlocks, pixels: torch.Tensor, inside: InTower, plan: Mapping[int, Act]) -> Left:
    """Encode frames with a method inside the tower; each sees itself alone.

    Args:
        pixels: uint8 (n, h, w, 3), one frame or step where ``inside.by_content``.
        plan: What ``inside.plan`` gave for ``tower.shape``.
    """
    return _left(tower, run_blocks(tower, pixels, inside, plan))


def run_blocks(tower: TowerBlocks, pixels: torch.Tensor, inside: InTower, plan: Mapping[int, Act]) -> Rows:
    """The same before the projector: rows in the order that the method leaves them in, [CLS] among them."""
    states = tower.embed(pixels)
    rows = Rows.start(states.unflatten(1, (-1, tower.unit)).flatten(2), tower.leading)
    into_last = rows
    for block in range(tower.run):
        if block == tower.shape.blocks[-1]:
            into_last = rows
        rows = _through(tower, block, rows, inside, plan.get(block))
    return rows if inside.protect is None else _protected(tower, rows, into_last, inside, inside.protect)


def _protected(tower: TowerBlocks, rows: Rows, into_last: Rows, inside: InTower, protect: Protect) -> Rows:
    """The rows with what a method says of them by the attention of the last block.

    ``into_last`` is what went into the last block that ran and attends to whole frames.
    """
    block = tower.shape.blocks[-1]
    before = into_last if into_last.states.shape == rows.states.shape else rows
    if tower.run < tower.shape.depth:
        block, before = tower.shape.depth - 1, rows
        for between in range(tower.run, block):
            before = _through(tower, between, before, inside, None)
    chosen = protect(before, _look(tower, block, before, inside))
    return replace(rows, memory={**rows.memory, PROTECTED: chosen})


def check_plan(shape: TowerShape, inside: InTower) -> Mapping[int, Act]:
    """The plan of a method. Raises ``MethodError``; ``ModelError`` for a tower without a block to reduce in."""
    if not shape.blocks:
        raise ModelError("no block of this tower attends to whole frames, so no rows can be reduced inside it")
    return inside.plan(shape)


def _through(tower: TowerBlocks, block: int, rows: Rows, inside: InTower, act: Act | None) -> Rows:
    when = None if act is None else inside.when
    of_before: Step | None = None
    seen = _look(tower, block, rows, inside)
    if when == "input":
        before, (rows, step) = rows, _acted(tower, rows, inside, act, seen)
        if step is not None and step.shares is not None:
            of_before = step
        elif rows is not before:
            seen = _look(tower, block, rows, inside)
    if of_before is None:
        attended = _attend(seen, tower.segments(block, rows.anchors)).transpose(1, 2).flatten(2)
    else:
        attended = attend_before(tower, block, seen, of_before)
    states = _patches(tower, rows)
    rows = _with_patches(tower, rows, states + tower.leave(block, attended))
    if when == "attention":
        rows, _ = _acted(tower, rows, inside, act, seen)
    states = _patches(tower, rows)
    rows = _with_patches(tower, rows, states + tower.mlp(block, states))
    if when == "output":
        rows, _ = _acted(tower, rows, inside, act, seen)
    return rows if of_before is None else _in_windows(tower, rows)


def attend_before(tower: TowerBlocks, block: int, seen: BlockAttention, step: Step) -> torch.Tensor:
    """(B, R', C), what the rows after a step get of the attention of those before.

    Equal to adding the columns of the attention and averaging its rows as the rows were fused: each row before gives
    the value of what it went into, and what each gets is averaged. Only rows that were fused need new values.
    """
    assert step.shares is not None
    unit, fused = tower.unit, step.fused
    made = step.states[fused].unflatten(1, (unit, -1)).flatten(0, 1).unsqueeze(0)
    fresh = tower.values(block, made).transpose(1, 2).unflatten(1, (-1, unit)).squeeze(0)
    number = torch.zeros_like(step.rows)
    number[fused] = torch.arange(len(fresh), device=fresh.device)
    went = fused.gather(1, step.into)
    value = seen.value.transpose(1, 2).unflatten(1, (-1, unit)).clone()
    value[went] = fresh[number.gather(1, step.into)[went]]
    attended = seen.attended(value.flatten(1, 2).transpose(1, 2)).transpose(1, 2)
    mean = averaged(attended.unflatten(1, (-1, unit)).flatten(2), step.rows, step.into, step.shares)
    return mean.unflatten(2, (unit, -1)).flatten(1, 2)


def _look(tower: TowerBlocks, block: int, rows: Rows, inside: InTower) -> BlockAttention:
    """What the block's attention is made of."""
    query, plain, value = tower.heads(block, _patches(tower, rows))
    bias = None
    if inside.proportional and rows.merged:
        # The logarithm of what each column stands for.
        bias = rows.sizes.log().repeat_interleave(tower.unit, dim=1)[:, None, None].to(rows.states.dtype)
    return BlockAttention(
        tower.rotate(query, rows.anchors),
        tower.rotate(plain, rows.anchors),
        value,
        plain,
        tower.scale(block),
        bias,
        tower.unit,
        tower.leading,
    )


def _acted(
    tower: TowerBlocks, rows: Rows, inside: InTower, act: Act | None, seen: BlockAttention
) -> tuple[Rows, Step | None]:
    step = None if act is None else act(rows, seen)
    if step is None:
        return rows, None
    rows = rows.reduced(step, inside.merges)
    # What goes with the attention of those before must stand as the step left it.
    return (_in_windows(tower, rows) if step.shares is None else rows), step


def _in_windows(tower: TowerBlocks, rows: Rows) -> Rows:
    """Windows stand one behind the other in towers that have them: each row goes where its place is."""
    return rows if tower.order is None else rows.ordered(rows.anchors.argsort(dim=1))


def _patches(tower: TowerBlocks, rows: Rows) -> torch.Tensor:
    """(B, R, C)."""
    return rows.states if tower.unit == 1 else rows.states.unflatten(2, (tower.unit, -1)).flatten(1, 2)


def _with_patches(tower: TowerBlocks, rows: Rows, states: torch.Tensor) -> Rows:
    return replace(rows, states=states if tower.unit == 1 else states.unflatten(1, (-1, tower.unit)).flatten(2))


def _attend(seen: BlockAttention, segments: list[int] | None) -> torch.Tensor:
    """(B, H, R, d)."""
    attention = torch.nn.functional.scaled_dot_product_attention
    if segments is None:
        return attention(seen.query, seen.key, seen.value, attn_mask=seen.bias, scale=seen.scale)
    given = (seen.query, seen.key, seen.value)
    flat = [values.transpose(0, 1).flatten(1, 2).unsqueeze(0).split(segments, dim=2) for values in given]
    biases: Any = [None] * len(segments)
    if seen.bias is not None:
        biases = seen.bias.reshape(1, 1, 1, -1).split(segments, dim=3)
    parts = [
        attention(query, key, value, attn_mask=bias, scale=seen.scale)
        for query, key, value, bias in zip(*flat, biases, strict=True)
    ]
    joined = torch.cat(parts, dim=2).squeeze(0)
    return joined.unflatten(1, (seen.query.shape[0], -1)).transpose(0, 1)


def _left(tower: TowerBlocks, rows: Rows) -> Left:
    counted = rows.anchors >= 0
    if PLACELESS in rows.memory:
        counted &= ~rows.memory[PLACELESS]
    places = rows.anchors if tower.order is None else tower.order.to(rows.anchors.device)[rows.anchors]
    # Rows without a place go behind all others.
    ordered = places.masked_fill(~counted, tower.shape.rows).argsort(dim=1, stable=True)
    kept = int(counted[0].sum())
    order = ordered[:, :kept]
    rows = rows.ordered(order)
    labels = rows.labels
    if tower.shape.stands is not None:
        labels = labels[:, tower.shape.stands.to(labels.device)]
    frames = torch.arange(len(labels), device=labels.device).unsqueeze(1)
    return Left(
        tokens=tower.project(rows.states.flatten(0, 1)),
        source=(places.gather(1, order) + frames * tower.shape.rows).flatten(),
        mass=rows.sizes.flatten(),
        assignment=torch.where(labels < 0, -1, labels + frames * kept).flatten(),
        protected=rows.memory[PROTECTED].flatten() if PROTECTED in rows.memory else None,
    )
