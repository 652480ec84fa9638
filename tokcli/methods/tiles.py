"""The pictures that the tower saw one by one: frames of a video, a still, its thumbnail, the tiles of its canvas."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from tokcli.methods.layout import steps_of, take
from tokcli.ops.thumbnail import tile_grid
from tokcli.types import View, VisualTokens


@dataclass(frozen=True)
class Tile:
    """A rectangle of tokens with an attention of its own."""

    rows: torch.Tensor
    """int64 (n,), ascending: its rows that are not structural."""
    coords: torch.Tensor
    """int32 (N, 4): those of all rows of the item."""
    grid: tuple[int, int]
    """(h, w): places of the whole tile, those included that were cut off as padding."""
    corner: tuple[int, int] = (0, 0)
    """(y, x) in its view of its first place, below 0 where that was cut off."""
    shift: tuple[int, int] = (0, 0)
    """(y, x) of the first place of its view on the canvas of all tiles beside a thumbnail."""
    thumbnail: bool = False
    """Whether it shows the whole that the other tiles are parts of."""
    at: tuple[int, int] = (0, 0)
    """(row, column) among the tiles that are parts."""

    @cached_property
    def places(self) -> torch.Tensor:
        """int64 (n, 2): y and x of each row inside the tile."""
        return self._in_view - torch.tensor(self.corner)

    @cached_property
    def spots(self) -> torch.Tensor:
        """int64 (n, 2): y and x of each row on the canvas of all tiles beside a thumbnail, without padding."""
        return self._in_view + torch.tensor(self.shift)

    @property
    def _in_view(self) -> torch.Tensor:
        return self.coords[self.rows, 2:].to(torch.int64)


@dataclass(frozen=True)
class Step:
    """What is compressed together: a temporal step of a video, or everything of a still."""

    index: int
    """Number of the temporal step; -1 for the still, of all views that have one step."""
    tiles: tuple[Tile, ...]
    arrangement: tuple[int, int]
    """(rows, columns) that the tiles other than the thumbnail stand in."""
    canvas: tuple[int, int]
    """(h, w): places of all these tiles together, without padding."""

    @property
    def rows(self) -> torch.Tensor:
        """int64 (n,), ascending: those of all tiles."""
        return (
            self.tiles[0].rows if len(self.tiles) == 1 else torch.cat([tile.rows for tile in self.tiles]).sort().values
        )

    def __len__(self) -> int:
        return sum(self.sizes)

    @property
    def sizes(self) -> list[int]:
        """Rows of each tile."""
        return [len(tile.rows) for tile in self.tiles]

    @property
    def thumbnail(self) -> Tile | None:
        return next((tile for tile in self.tiles if tile.thumbnail), None)

    @property
    def parts(self) -> list[Tile]:
        """The tiles other than the thumbnail, by row and column."""
        return sorted((tile for tile in self.tiles if not tile.thumbnail), key=lambda tile: tile.at)


def tiled_steps(visual: VisualTokens) -> list[Step]:
    """The still, if there is one, and the temporal steps of videos that have rows, in order.

    A crop that is larger than the thumbnail beside it is a canvas, and is cut into tiles of the thumbnail's size; where
    the canvas lost its padding, as much is missing on either side. Crops that are views of their own stand in rows as
    near to a square as their number allows, wider than high: an item doesn't tell more.
    """
    small = next((view.grid[1:] for view in visual.views if view.kind == "thumbnail"), None)
    by_step: dict[int, list[Tile]] = {}
    for rows in steps_of(visual):
        view, step = visual.coords[int(rows[0]), :2].tolist()
        key = step_of(visual.views[view], step)
        by_step.setdefault(key, []).extend(_tiles(rows, visual.coords, visual.views[view], small))
    canvas = next((view.grid[1:] for view in visual.views if view.kind == "crop"), None)
    return [_arranged(step, by_step[step], canvas, small) for step in sorted(by_step)]


def step_of(view: View, step: int) -> int:
    """The index of the :class:`Step` that a temporal step of a view belongs to."""
    return step if view.grid[0] > 1 else -1


def _tiles(rows: torch.Tensor, coords: torch.Tensor, view: View, small: tuple[int, int] | None) -> list[Tile]:
    grid = (view.grid[1], view.grid[2])
    if view.kind != "crop" or small is None or (grid[0] <= small[0] and grid[1] <= small[1]):
        return [Tile(rows, coords, grid, thumbnail=view.kind == "thumbnail")]
    counts = [-(-length // side) for length, side in zip(grid, small)]
    cut = [(count * side - length) // 2 for count, side, length in zip(counts, small, grid)]
    row, column = ((take(coords, rows).numpy()[:, 2 + axis] + cut[axis]) // small[axis] for axis in (0, 1))
    number = row * counts[1] + column
    # Small numbers of 16 bits are sorted in one pass; a canvas has no more tiles than that by far.
    order = rows.index_select(0, torch.from_numpy(np.argsort(number.astype(np.uint16), kind="stable")))
    sizes = np.bincount(number, minlength=counts[0] * counts[1]).tolist()
    return [
        Tile(chosen, coords, small, corner=(at[0] * small[0] - cut[0], at[1] * small[1] - cut[1]), at=at)
        for at, chosen in zip(np.ndindex(counts[0], counts[1]), order.split(sizes))
        if len(chosen)
    ]


def _arranged(step: int, tiles: list[Tile], canvas: tuple[int, int] | None, small: tuple[int, int] | None) -> Step:
    parts = [tile for tile in tiles if not tile.thumbnail]
    if len(parts) > 1 and len({tile.at for tile in parts}) < len(parts):
        columns, rows = tile_grid(len(parts))
        height, width = (max(tile.grid[axis] for tile in parts) for axis in (0, 1))
        placed = [
            replace(tile, at=at, shift=(at[0] * height, at[1] * width))
            for tile, at in ((tile, divmod(index, columns)) for index, tile in enumerate(parts))
        ]
        whole = tuple(tile for tile in tiles if tile.thumbnail)
        return Step(step, (*whole, *placed), (rows, columns), (rows * height, columns * width))
    if canvas is None or small is None:
        return Step(step, tuple(tiles), (1, 1), canvas or tiles[0].grid)
    rows, columns = (-(-length // side) for length, side in zip(canvas, small))
    return Step(step, tuple(tiles), (rows, columns), canvas)


def on_grid(values: torch.Tensor, tile: Tile) -> torch.Tensor:
    """Values (n,) of a tile's rows by their places: (h, w), zeros where there is no row."""
    grid = values.new_zeros(tile.grid)
    grid[tile.places[:, 0], tile.places[:, 1]] = values
    return grid


def region_sums(step: Step, thumbnail: Tile, values: torch.Tensor) -> torch.Tensor:
    """Sums of values (n,) of the thumbnail's rows over the region of each of the other tiles: float64 (parts,).

    The thumbnail is cut into as many equal regions as there are tiles; what does not divide falls to the last.
    """
    rows, columns = step.arrangement
    y, x = (
        (places // max(1, side // count)).clamp_max(count - 1)
        for places, side, count in zip(thumbnail.places.unbind(dim=1), thumbnail.grid, step.arrangement)
    )
    sums = torch.zeros(rows * columns, dtype=torch.float64).index_add_(0, y * columns + x, values.double())
    return sums[[tile.at[0] * columns + tile.at[1] for tile in step.parts]]
