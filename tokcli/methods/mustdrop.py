"""MustDrop, vision stage: merge windows of like patches after the first block (arXiv:2411.10803)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field

from tokcli.errors import MethodError
from tokcli.methods.base import in_tower, method
from tokcli.methods.options import VariantOptions
from tokcli.methods.tower_schedule import ShareOfFrame, refuse_ceiling
from tokcli.ops.block_attention import BlockAttention
from tokcli.ops.reducing import Act, InTower, Rows, Step, TowerShape
from tokcli.ops.similarity import norms


class MustdropOptions(ShareOfFrame, VariantOptions):
    default_budget: ClassVar[Mapping[str, float]] = {"threshold": 0.8}
    threshold: float | None = Field(
        default=None, ge=-1, description="Least mean cosine in a window for it to become one token."
    )
    window: int = Field(default=3, ge=2, description="Tokens along the side of a window.")
    protect: float = Field(
        default=0.08, ge=0, le=1, description="Share of a frame's remaining tokens that is marked to be spared later."
    )


@dataclass(frozen=True)
class Windows:
    """How frames are cut into windows."""

    grid: tuple[int, int]
    side: int

    @property
    def counts(self) -> tuple[int, int]:
        """Whole windows down and across."""
        return self.grid[0] // self.side, self.grid[1] // self.side

    def places(self) -> torch.Tensor:
        """int64 (windows, side * side): the rows of each, line by line; what fills no window is in none."""
        (rows, columns), (down, across) = self.grid, self.counts
        whole = torch.arange(rows * columns).view(rows, columns)[: down * self.side, : across * self.side]
        places = whole.reshape(down, self.side, across, self.side)
        return places.transpose(1, 2).flatten(2).flatten(0, 1)


def merge_windows(
    states: torch.Tensor, windows: Windows, order: torch.Tensor, leading: int, *, threshold: float | None, count: int
) -> Step:
    """Make one row each of the windows whose rows are most alike: [CLS], those by likeness, the other rows.

    Args:
        states: (B, leading + N, W).
        order: int64 (N,): the place among ``states``, [CLS] not counted, of each row of the frame line by line.
        threshold: Least mean cosine; the smallest number of windows of any frame counts for all. None for ``count``.
    """
    places = order[windows.places()].to(states.device)
    size = places.shape[1]
    inside = states[:, leading:][:, places].float()
    unit = inside / norms(inside).unsqueeze(3)
    likeness = (unit.sum(dim=2).square().sum(dim=2) - unit.square().sum(dim=(2, 3))) / (size * (size - 1))
    if threshold is not None:
        count = int((likeness >= threshold).sum(dim=1).min())
    chosen = likeness.sort(dim=1, descending=True, stable=True).indices[:, :count]
    members = places[chosen] + leading  # (B, count, size)
    means = inside.gather(1, chosen[:, :, None, None].expand(-1, -1, *inside.shape[2:])).mean(dim=2)
    gone = torch.zeros(states.shape[:2], dtype=torch.bool, device=states.device).scatter_(1, members.flatten(1), True)
    gone[:, :leading] = True
    others = gone.to(torch.int8).sort(dim=1, stable=True).indices[:, : states.shape[1] - leading - count * size]
    first = torch.arange(leading, device=states.device).expand(len(states), -1)
    centre = members[:, :, (windows.side - 1) // 2 * (windows.side + 1)]
    into = torch.zeros_like(gone, dtype=torch.int64)
    ranks = torch.arange(leading, leading + count + others.shape[1], device=states.device)
    into.scatter_(1, members.flatten(1), ranks[:count].repeat_interleave(size).expand(len(states), -1))
    into.scatter_(1, others, ranks[count:].expand_as(others))
    kept = Step.selected(states, torch.cat([first, others], dim=1)).states
    return Step(
        states=torch.cat([kept[:, :leading], means.to(states.dtype), kept[:, leading:]], dim=1),
        rows=torch.cat([first, centre, others], dim=1),
        into=into,
    )


def _act(
    windows: Windows, stands: torch.Tensor, threshold: float | None, count: int, rows: Rows, seen: BlockAttention
) -> Step | None:
    step = merge_windows(rows.states, windows, stands, rows.leading, threshold=threshold, count=count)
    return step if step.rows.shape[1] < rows.states.shape[1] else None


def most_attended(share: float, rows: Rows, seen: BlockAttention) -> torch.Tensor:
    """bool (B, T): ``ceil(share * n)`` of a frame's n rows, those that [CLS], or all rows, look at most.

    The product is in floating point, as the authors'. Ties go to the earlier row.
    """
    count = rows.states.shape[1] - rows.leading
    scores = seen.importance()[:, rows.leading :]
    best = scores.sort(dim=1, descending=True, stable=True).indices[:, : math.ceil(share * count)]
    return torch.zeros_like(rows.anchors, dtype=torch.bool).scatter_(1, best + rows.leading, True)


def _plan(options: MustdropOptions, shape: TowerShape) -> dict[int, Act]:
    windows = Windows(shape.grid, options.window)
    divides = not any(length % windows.side for length in shape.grid)
    if not (divides if options.variant == "official" else all(windows.counts)):
        sides = [side for side in range(2, min(shape.grid) + 1) if not any(length % side for length in shape.grid)]
        raise MethodError(
            f"method 'mustdrop': window={windows.side} does not divide {shape.grid[0]}x{shape.grid[1]} tokens a frame; "
            + (f"windows that do: {', '.join(map(str, sides))}" if sides else "no window does; use variant=fixed")
        )
    count = 0
    left = options.rows_left("mustdrop", shape)
    if left is not None:
        gone = shape.rows - left
        count = min(-(-gone // (windows.side**2 - 1)), math.prod(windows.counts))
        least = shape.rows - count * (windows.side**2 - 1)
        if options.max_tokens is not None and least > left:
            refuse_ceiling("mustdrop", options, shape, least)
        if options.keep is not None and options.keep * windows.side**2 < 1:
            raise MethodError(
                f"method 'mustdrop' makes one token of a window of {windows.side**2} of this tower, so it cannot leave "
                f"{options.keep:g} of a frame's; give a larger window or a larger share"
            )
    stands = torch.arange(shape.rows) if shape.stands is None else shape.stands
    return {shape.blocks[0]: partial(_act, windows, stands, options.threshold, count)}


@method(
    "mustdrop",
    options=MustdropOptions,
    paper="arXiv:2411.10803",
    code="liuting20/MustDrop 909afa53",
    licence="Apache-2.0 by its README",
    kind="merge",
    count="by the encoder",
    streaming=True,
    where=in_tower,
    variants={
        "official": "forgets how many tokens a merged one stands for; windows must divide the frame",
        "fixed": "gives merged tokens attention by how many they stand for; what fills no window stays as it is",
    },
    golden=("mustdrop",),
)
def mustdrop(options: MustdropOptions) -> InTower:
    """Merge windows of like patches into one token each, once, after the tower's first block.

    A window becomes the mean of its tokens, at its middle, if the mean cosine of its pairs is at least ``threshold``;
    with ``keep`` as many windows do as the share asks for, those most alike. In towers with windows of their own it is
    the first block that attends to whole frames.

    This is the vision stage. The later ones go by a text and are no part of a cache, but for what they spare: the 8% of
    a frame's remaining tokens that [CLS] attends to most in the tower's last block, or all tokens where there is none.
    These are marked: a cache has them with each item, as ``protected`` among its small arrays.
    """
    return InTower(
        partial(_plan, options),
        when="output",
        proportional=options.variant == "fixed",
        by_content=options.threshold is not None,
        protect=partial(most_attended, options.protect) if options.protect else None,
    )
