"""How many rows a method leaves out in which block of a vision tower, from a share or from its authors' numbers.

The rules, for every method that reduces by a number of rows:

- Only blocks that run and that attend to whole frames count: all up to the one that the features come from in most
  towers, the full-attention ones where there are windows.
- ``keep`` is a share of each frame's tokens, rounded as budgets are (at least one is kept): of N tokens K are left.
  The N - K are taken away with the smallest equal number in each block that suffices, half of the rows where that is
  less, and what remains in the last one.
- ``max_tokens`` is a ceiling for the item: each of its T frames is left with ``max_tokens // T`` rows. T is what is to
  be encoded, as it is known when the first frame is.
- ``r`` is the authors' number, in each of these blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, NoReturn

from pydantic import Field, model_validator

from tokcli.errors import MethodError
from tokcli.methods.budget import SizeBudget, share_count
from tokcli.ops.reducing import TowerShape


class ShareOfFrame(SizeBudget):
    """Options of methods inside the tower: a share of each frame, or its part of a number for the item."""

    keep: float | None = Field(default=None, gt=0, le=1, description="Share of each frame's tokens to keep.")
    max_tokens: int | None = Field(
        default=None, ge=1, description="Most tokens to keep of an item: as many of each of its frames."
    )

    def rows_left(self, name: str, shape: TowerShape) -> int | None:
        """How many rows a budget leaves of each frame; None without one, and all where no item is known yet.

        Raises :class:`MethodError` for a ceiling below a token of each frame.
        """
        if self.keep is not None:
            return share_count(self.keep, shape.rows)
        if self.max_tokens is None:
            return None
        if shape.steps is None:
            return shape.rows
        if self.max_tokens < shape.steps:
            raise MethodError(
                f"method {name!r} leaves at least a token of each of {shape.steps} temporal steps, over "
                f"max_tokens={self.max_tokens}; allow that many, sample fewer frames, or choose some first: "
                f"keyframes,{name}"
            )
        return min(shape.rows, self.max_tokens // shape.steps)


class StepsOfR(ShareOfFrame):
    """The same for methods that take away r rows in each block."""

    own_budgets: ClassVar[tuple[str, ...]] = ("r",)
    r: int | None = Field(default=None, ge=0, description="Rows to take away in each block, in place of a share.")


def numbers(name: str, text: str) -> list[int]:
    """The whole numbers of ``a,b,...``. Raises ``ValueError`` for another text."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"{name}={text!r} must be whole numbers with commas between, such as 3,6,9")
    return [int(part) for part in parts]


def steps_by_budget(name: str, options: ShareOfFrame, shape: TowerShape) -> dict[int, int] | None:
    """How many rows to take away in which block for the budget that was given; None without one.

    Raises :class:`MethodError` for one that all blocks of the tower don't reach that take half away.
    """
    count = options.rows_left(name, shape)
    if count is None:
        return None
    if options.keep is not None:
        return steps_by_share(name, options.keep, shape)
    steps = _steps(shape.rows - count, shape)
    least = shape.rows - sum(steps.values())
    if least > count:
        refuse_ceiling(name, options, shape, least)
    return steps


def refuse_ceiling(name: str, options: ShareOfFrame, shape: TowerShape, least: int) -> NoReturn:
    """Raise :class:`MethodError`: not less than ``least`` rows can be left of a frame, over its part of the ceiling."""
    steps = shape.steps or 1
    in_all = f", {least * steps} of {steps} temporal steps" if steps > 1 else ""
    raise MethodError(
        f"method {name!r} leaves at least {least} of the {shape.rows} tokens of a frame of this tower{in_all}, over "
        f"max_tokens={options.max_tokens}; allow that many, sample fewer frames, or take a method that works on tokens"
    )


def steps_by_share(name: str, keep: float, shape: TowerShape) -> dict[int, int]:
    """How many rows to take away in which block, at most half of them in each, so that ``keep`` of all are left.

    Where halves of odd numbers leave a few more, these stay. Raises :class:`MethodError` for a share below what all
    blocks of the tower leave that take half away.
    """
    least = 0.5 ** len(shape.blocks)
    if keep < least:
        raise MethodError(
            f"method {name!r} can take away half of a frame's tokens in each of {len(shape.blocks)} blocks of this "
            f"tower, which leaves {least:.3g} of them, not {keep:g}; ask for keep={least:.3g} or more, or take a "
            "method that works on tokens"
        )
    return _steps(shape.rows - share_count(keep, shape.rows), shape)


def _steps(wanted: int, shape: TowerShape) -> dict[int, int]:
    """How many rows to take away in which block, ``wanted`` in all if halves allow it."""
    blocks = len(shape.blocks)
    wanted = min(wanted, sum(_even(shape.rows, shape.rows, blocks)))
    each = next(r for r in range(wanted + 1) if sum(_even(r, shape.rows, blocks)) >= wanted)
    steps, left = {}, wanted
    for block, count in zip(shape.blocks, _even(each, shape.rows, blocks)):
        steps[block] = min(count, left)
        left -= steps[block]
    return {block: count for block, count in steps.items() if count}


def _even(r: int, rows: int, blocks: int) -> list[int]:
    counts = []
    for _ in range(blocks):
        counts.append(min(r, rows // 2))
        rows -= counts[-1]
    return counts


def steps_by_r(counts: Sequence[int], shape: TowerShape) -> dict[int, int]:
    """The authors' numbers, one for each block in which rows may be reduced; what is missing is 0."""
    return {block: count for block, count in zip(shape.blocks, counts) if count}


def ramp(r: int, inflect: float, blocks: int) -> list[int]:
    """ToMe's (r, inflect): from r (1 - inflect) in the first block, in a straight line, to r (1 + inflect).

    Whole numbers, cut off as its code does: the first is ``int(r * (1 - inflect))``, the last ``2 r`` less that.
    """
    first = int(r * (1.0 - inflect))
    rise = (2 * r - first - first) / max(1, blocks - 1)
    return [int(first + rise * block) for block in range(blocks)]


STAGES = (0.25, 0.5, 0.75)
"""Where methods reduce that do so in some blocks only, as shares of the tower's depth: EViT's 3, 6 and 9 of 12."""


class AtBlocks(ShareOfFrame):
    """Options of methods that reduce in some blocks."""

    at: str = Field(
        default="",
        description="Blocks to reduce in, a,b,..., from 0; by default those at 1/4, 1/2 and 3/4 of the depth.",
    )

    @model_validator(mode="after")
    def _whole_numbers(self) -> AtBlocks:
        numbers("at", self.at)
        return self

    def stages(self, name: str, shape: TowerShape) -> list[int]:
        """The blocks, ascending. By default the nearest ones that attend to whole frames; named ones must do so."""
        named = numbers("at", self.at)
        for block in named:
            if block not in shape.blocks:
                raise MethodError(
                    f"method {name!r} can't reduce in block {block} of this tower, which sees windows only or does not "
                    f"run; blocks that will do: {', '.join(map(str, shape.blocks))}"
                )
        wanted = [int(share * shape.depth) for share in STAGES]
        nearest = [min(shape.blocks, key=lambda block: (abs(block - place), block)) for place in wanted]
        return sorted(set(named or nearest))


def left_in_stages(name: str, options: ShareOfFrame, stages: int, shape: TowerShape) -> list[int] | None:
    """How many rows to leave after each stage, by about the same share each time; None without a budget."""
    left = options.rows_left(name, shape)
    if left is None:
        return None
    share = left / shape.rows if options.keep is None else options.keep
    return [*(math.ceil(shape.rows * share ** (stage / stages)) for stage in range(1, stages)), left]
