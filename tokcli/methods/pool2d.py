"""Baseline: averages over the cells of a coarser grid."""

from __future__ import annotations

import torch

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.layout import Block, blocks
from tokcli.methods.output import merge
from tokcli.ops.pooling import cell_centres, grid_cells, grid_shape_within, nearest_members
from tokcli.types import TokenSet, VisualTokens


class Pool2dOptions(SizeBudget):
    budget_required = True


@method("pool2d", options=Pool2dOptions, kind="merge", count="at most")
def pool2d(visual: VisualTokens, options: Pool2dOptions) -> TokenSet:
    """Average the tokens of every frame over the cells of a coarser grid.

    A baseline that keeps the layout. All frames of a view go from (h, w) to the (h', w') that is nearest to its
    proportions within the budget, ``h' = round(sqrt(b * h / w))`` and ``w' = b // h'`` for b tokens a frame, so that
    somewhat fewer tokens than asked for are normal, and one a frame is the least. Cells partition the grid (row y goes
    to cell ``floor(y * h' / h)``): every token counts once, where h' divides h it is plain average pooling. A mean is
    placed at the token in the middle of its cell. Earlier merging is not weighted in.
    """
    layout = blocks(visual)
    frames = sum(len(block.steps) for block in layout)
    places = sum(block.rows.numel() for block in layout)
    count = rows_to_keep("pool2d", options, visual, floor=frames, floor_is="a token of every frame")
    labels = torch.full((len(visual),), -1, dtype=torch.int64)
    distances = torch.zeros(len(visual), dtype=torch.int64)
    cells_so_far = 0
    for block in layout:
        per_frame = block.rows.shape[1]
        # A token for each frame, and the rest of the budget by size: the sum never exceeds it.
        budget = 1 + (count - frames) * (per_frame - 1) // max(1, places - frames)
        _, height, width = visual.views[block.view].grid
        shape = grid_shape_within(height, width, budget)
        cells_so_far = _label(block, (height, width), shape, labels, distances, cells_so_far)
    scored = torch.nonzero(labels >= 0).flatten()
    used, groups = torch.unique(labels[scored], return_inverse=True)
    labels[scored] = groups
    anchors = scored[nearest_members(groups, distances[scored], used.numel())]
    return merge(visual, labels, anchors)


def _label(
    block: Block,
    grid: tuple[int, int],
    shape: tuple[int, int],
    labels: torch.Tensor,
    distances: torch.Tensor,
    first_cell: int,
) -> int:
    """Write the cell of each row of a block and its distance from the cell's middle; return the next free cell."""
    row, column = grid_cells(grid[0], shape[0]), grid_cells(grid[1], shape[1])
    from_row = (torch.arange(grid[0]) - cell_centres(grid[0], shape[0])[row]).abs()
    from_column = (torch.arange(grid[1]) - cell_centres(grid[1], shape[1])[column]).abs()
    cell = (row.unsqueeze(1) * shape[1] + column).flatten()
    distance = (from_row.unsqueeze(1) + from_column).flatten()
    frame = torch.arange(len(block.steps)).unsqueeze(1)
    present = block.present
    labels[block.rows[present]] = (first_cell + frame * shape[0] * shape[1] + cell)[present]
    distances[block.rows[present]] = distance.expand_as(block.rows)[present]
    return first_cell + len(block.steps) * shape[0] * shape[1]
