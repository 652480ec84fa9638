"""Baseline: averages over the cells of a coarser grid, or samples of it."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.layout import Block, blocks
from tokcli.methods.output import merge
from tokcli.ops.pooling import grid_shape_within, nearest_members
from tokcli.ops.resizing import Axis, Samples, bilinear
from tokcli.types import TokenSet, VisualTokens


class Pool2dOptions(SizeBudget):
    budget_required = True
    own_budgets: ClassVar[tuple[str, ...]] = ("window",)

    window: int | None = Field(
        default=None, ge=1, description="In place of a budget: rows of the grid that become one, and as many columns."
    )
    window_columns: int | None = Field(
        default=None, ge=1, description="Columns of the grid that become one, where not as many as rows."
    )
    pad: Literal["partial", "crop"] = Field(
        default="partial",
        description="What becomes of rows and columns that fill no window: 'partial' windows of their own, or 'crop', "
        "they are dropped.",
    )
    resize: Literal["mean", "bilinear"] = Field(
        default="mean", description="'mean' over each cell, or 'bilinear' samples, without antialiasing."
    )

    @model_validator(mode="after")
    def _columns_of_a_window(self) -> Pool2dOptions:
        if self.window_columns is not None and self.window is None:
            raise ValueError("window_columns goes with window, the number of rows; give both or neither")
        return self


@method("pool2d", options=Pool2dOptions, kind="merge", count="at most")
def pool2d(visual: VisualTokens, options: Pool2dOptions) -> TokenSet:
    """Average the tokens of every frame over the cells of a coarser grid.

    A baseline that keeps the layout. All frames of a view go from (h, w) to the (h', w') that is nearest to its
    proportions within the budget, ``h' = round(sqrt(b * h / w))`` and ``w' = b // h'`` for b tokens a frame, so that
    somewhat fewer tokens than asked for are normal, and one a frame is the least. Cells partition the grid (row y goes
    to cell ``floor(y * h' / h)``): every token counts once, where h' divides h it is plain average pooling. A mean is
    placed at the token in the middle of its cell. Earlier merging is not weighted in.

    ``window`` makes cells of so many rows and columns instead, whatever number of tokens that gives.
    ``resize=bilinear`` samples the grid as LLaVA-OneVision does with large pictures: a token goes to the sample that it
    counts most for, and is dropped where it counts for none.
    """
    layout = blocks(visual)
    shapes = [_axes(visual.views[block.view].grid[1:], options) for block in layout]
    if options.window is None:
        shapes = _within_budget(visual, layout, options)
    labels = torch.full((len(visual),), -1, dtype=torch.int64)
    distances = torch.zeros(len(visual))
    values = []
    cells_so_far = 0
    for block, axes in zip(layout, shapes):
        grid = visual.views[block.view].grid[1:]
        shape = (len(axes[0].middles), len(axes[1].middles))
        samples = bilinear((grid[0], grid[1]), shape) if options.resize == "bilinear" else None
        cell, distance = _nearest_middles(axes) if samples is None else _most_weight(samples, grid[0] * grid[1])
        _label(block, cell, distance, shape[0] * shape[1], cells_so_far, labels, distances)
        cells_so_far += len(block.steps) * shape[0] * shape[1]
        if samples is not None:
            values += [_sampled(visual.tokens, rows, samples) for rows in block.rows]
    scored = torch.nonzero(labels >= 0).flatten()
    used, groups = torch.unique(labels[scored], return_inverse=True)
    labels[scored] = groups
    anchors = scored[nearest_members(groups, distances[scored], used.numel())]
    return merge(visual, labels, anchors, values=torch.cat(values)[used] if values else None)


def _axes(grid: tuple[int, int], options: Pool2dOptions) -> tuple[Axis, Axis]:
    """Windows of a fixed size."""
    rows = options.window or 1
    sizes = (rows, options.window_columns or rows)
    row, column = (
        Axis.of_windows(length, window, partial=options.pad == "partial") for length, window in zip(grid, sizes)
    )
    return row, column


def _within_budget(visual: VisualTokens, layout: list[Block], options: Pool2dOptions) -> list[tuple[Axis, Axis]]:
    """As many cells for each block as its part of the budget allows."""
    frames = sum(len(block.steps) for block in layout)
    places = sum(block.rows.numel() for block in layout)
    count = rows_to_keep("pool2d", options, visual, floor=frames, floor_is="a token of every frame")
    shapes = []
    for block in layout:
        per_frame = block.rows.shape[1]
        # A token for each frame, and the rest of the budget by size: the sum never exceeds it.
        budget = 1 + (count - frames) * (per_frame - 1) // max(1, places - frames)
        _, height, width = visual.views[block.view].grid
        rows, columns = grid_shape_within(height, width, budget)
        shapes.append((Axis.of_cells(height, rows), Axis.of_cells(width, columns)))
    return shapes


def _nearest_middles(axes: tuple[Axis, Axis]) -> tuple[torch.Tensor, torch.Tensor]:
    """The cell of each place, int64 (P,), -1 for none, and the steps from there to its middle, float32 (P,)."""
    row, column = axes
    cell = row.cells.unsqueeze(1) * len(column.middles) + column.cells
    outside = (row.cells < 0).unsqueeze(1) | (column.cells < 0)
    from_row, from_column = (
        (torch.arange(len(axis.cells)) - axis.middles[axis.cells.clamp_min(0)]).abs() for axis in axes
    )
    distance = from_row.unsqueeze(1) + from_column
    return cell.masked_fill(outside, -1).flatten(), distance.flatten().float()


def _most_weight(samples: Samples, places: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for samples: a place is near where it has much weight."""
    cell, weight = samples.cells(places)
    return cell, -weight


def _label(
    block: Block,
    cell: torch.Tensor,
    distance: torch.Tensor,
    cells: int,
    first_cell: int,
    labels: torch.Tensor,
    distances: torch.Tensor,
) -> None:
    """Write the cell of each row of a block and its distance from the cell's middle."""
    frame = torch.arange(len(block.steps)).unsqueeze(1)
    there = block.present & (cell >= 0)
    labels[block.rows[there]] = (first_cell + frame * cells + cell)[there]
    distances[block.rows[there]] = distance.expand_as(block.rows)[there]


def _sampled(tokens: torch.Tensor, rows: torch.Tensor, samples: Samples) -> torch.Tensor:
    """The samples of a frame, float32 (P', D), of its int64 (P,) rows; places without a row do not count."""
    around = rows[samples.places]
    weights = samples.weights.masked_fill(around < 0, 0.0)
    if bool((around < 0).any()):
        weights = weights / weights.sum(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
    total = torch.zeros((around.shape[1], tokens.shape[1]))
    for corner, weight in zip(around, weights):
        total.addcmul_(tokens[corner.clamp_min(0)].float(), weight.unsqueeze(1))
    return total
