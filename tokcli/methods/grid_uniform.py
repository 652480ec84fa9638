"""Baseline: tokens at the middles of a coarse grid."""

from __future__ import annotations

import torch

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Choose, StepSelection, shares_of
from tokcli.methods.tiles import Step, Tile
from tokcli.types import View, VisualTokens


class GridUniformOptions(SizeBudget):
    budget_required = True


@method("grid_uniform", options=GridUniformOptions, kind="select", count="at most", streaming=True)
def grid_uniform(options: GridUniformOptions, views: tuple[View, ...]) -> Stream:
    """Keep of each picture the tokens in the middles of the cells of a coarser grid.

    A baseline that looks at no content and, unlike ``uniform``, keeps the proportions: of an (h, w) picture with a
    budget of K tokens it takes ``round(sqrt(K * h / w))`` rows, and as many columns as fit, at
    ``floor((i + 0.5) * h / rows)``. Somewhat fewer tokens than asked for are normal. Each frame of a video, still,
    thumbnail and tile is a picture of its own with the same share.
    """

    def prepare(chunk: VisualTokens) -> Choose:
        def choose(step: Step, count: int) -> torch.Tensor:
            kept = [tile.rows[middles(tile, k)] for tile, k in zip(step.tiles, shares_of(step, count)) if k]
            return torch.cat(kept)

        return choose

    return StepSelection("grid_uniform", options, views, prepare)


def middles(tile: Tile, count: int) -> torch.Tensor:
    """Positions of the tokens of a tile that stand in the middles of at most ``count`` cells, int64.

    Where a method before this one left none of them, the first token.
    """
    height, width = tile.grid
    rows = min(height, count, max(1, round((count * height / width) ** 0.5)))
    columns = min(width, max(1, count // rows))
    y, x = (
        (2 * torch.arange(number) + 1) * side // (2 * number) for number, side in ((rows, height), (columns, width))
    )
    wanted = torch.zeros((height, width), dtype=torch.bool)
    wanted[y[:, None], x] = True
    found = torch.nonzero(wanted[tile.places[:, 0], tile.places[:, 1]]).flatten()
    return found if len(found) else torch.zeros(1, dtype=torch.int64)
