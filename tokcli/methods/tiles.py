"""The pictures that the tower saw one by one: frames of a video, a still, its thumbnail, the tiles of its canvas."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tokcli.methods.layout import steps_of
from tokcli.ops.thumbnail import tile_grid
from tokcli.types import View, VisualTokens


@dataclass(frozen=True)
class Tile:
    """A rectangle of tokens with an attention of its own."""

    rows: torch.Tensor
    """int64 (n,), ascending: its rows that are not structural."""
    places: torch.Tensor
    """int64 (n, 2): y and x of each row inside the tile."""
    grid: tuple[int, int]
    """(h, w): places of the whole tile, those included that were cut off as padding."""
    thumbnail: bool = False
    """Whether it shows the whole that the other tiles are parts of."""
    at: tuple[int, int] = (0, 0)
    """(row, column) among the tiles that are parts."""


@dataclass(frozen=True)
class Step:
    """All tiles of one temporal step: one frame of a video, or everything of a still."""

    index: int
    tiles: tuple[Tile, ...]
    arrangement: tuple[int, int]
    """(rows, columns) that the tiles other than the thumbnail stand in."""

    @property
    def rows(self) -> torch.Tensor:
        """int64 (n,), ascending: those of all tiles."""
        return (
            self.tiles[0].rows if len(self.tiles) == 1 else torch.cat([tile.rows for tile in self.tiles]).sort().values
        )

    @property
    def sizes(self) -> torch.Tensor:
        """int64 (number of tiles,)."""
        return torch.tensor([len(tile.rows) for tile in self.tiles])

    @property
    def thumbnail(self) -> Tile | None:
        return next((tile for tile in self.tiles if tile.thumbnail), None)

    @property
    def parts(self) -> list[Tile]:
        """The tiles other than the thumbnail, by row and column."""
        return sorted((tile for tile in self.tiles if not tile.thumbnail), key=lambda tile: tile.at)


def tiled_steps(visual: VisualTokens) -> list[Step]:
    """The temporal steps that have rows, in order.

    A crop that is larger than the thumbnail beside it is a canvas, and is cut into tiles of the thumbnail's size; where
    the canvas lost its padding, as much is missing on either side. Crops that are views of their own stand in rows as
    near to a square as their number allows, wider than high: an item doesn't tell more.
    """
    small = next((view.grid[1:] for view in visual.views if view.kind == "thumbnail"), None)
    by_step: dict[int, list[Tile]] = {}
    for rows in steps_of(visual):
        view, step = visual.coords[rows[0], :2].tolist()
        places = visual.coords[rows, 2:].to(torch.int64)
        by_step.setdefault(step, []).extend(_tiles(rows, places, visual.views[view], small))
    return [_arranged(step, by_step[step]) for step in sorted(by_step)]


def _tiles(rows: torch.Tensor, places: torch.Tensor, view: View, small: tuple[int, int] | None) -> list[Tile]:
    grid = (view.grid[1], view.grid[2])
    if view.kind != "crop" or small is None or (grid[0] <= small[0] and grid[1] <= small[1]):
        return [Tile(rows, places, grid, thumbnail=view.kind == "thumbnail")]
    counts = [-(-length // side) for length, side in zip(grid, small)]
    cut = torch.tensor([(count * side - length) // 2 for count, side, length in zip(counts, small, grid)])
    on_canvas, side = places + cut, torch.tensor(small)
    row, column = (on_canvas // side).unbind(dim=1)
    number = row * counts[1] + column
    order = torch.argsort(number, stable=True)
    used, sizes = torch.unique_consecutive(number[order], return_counts=True)
    inside = on_canvas % side
    return [
        Tile(rows[chosen], inside[chosen], small, at=divmod(index, counts[1]))
        for index, chosen in zip(used.tolist(), order.split(sizes.tolist()))
    ]


def _arranged(step: int, tiles: list[Tile]) -> Step:
    parts = [tile for tile in tiles if not tile.thumbnail]
    if len(parts) > 1 and len({tile.at for tile in parts}) < len(parts):
        columns, rows = tile_grid(len(parts))
        tiles = [tile for tile in tiles if tile.thumbnail] + [
            Tile(tile.rows, tile.places, tile.grid, at=divmod(index, columns)) for index, tile in enumerate(parts)
        ]
        return Step(step, tuple(tiles), (rows, columns))
    rows, columns = (1 + max((tile.at[axis] for tile in parts), default=0) for axis in (0, 1))
    return Step(step, tuple(tiles), (rows, columns))
