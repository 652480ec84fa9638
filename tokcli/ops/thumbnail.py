"""One picture of several frames, as TS-LLaVA (arXiv 2411.11066) shows a video to a model of images."""

from __future__ import annotations

import math

import torch

from tokcli.ops.selection import evenly_spread


def tile_grid(num_tiles: int) -> tuple[int, int]:
    """(rows, columns) of that many tiles, as near to a square as the number allows, with rows >= columns."""
    columns = max(width for width in range(1, math.isqrt(num_tiles) + 1) if num_tiles % width == 0)
    return num_tiles // columns, columns


def thumbnail(frames: torch.Tensor, num_frames: int, height: int, width: int) -> torch.Tensor:
    """Tile ``num_frames`` frames, from the first to the last at even distances, row by row in the order of time.

    ``frames``: uint8 (T, H, W, 3); fewer than ``num_frames`` are all taken. Returns float32 (3, h, w) in 0..1, where h
    and w are ``height`` and ``width`` rounded down to whole tiles. Tiles are averages over areas if a side shrinks,
    bilinear otherwise.
    """
    chosen = frames[evenly_spread(len(frames), min(num_frames, len(frames)))].permute(0, 3, 1, 2).float() / 255
    rows, columns = tile_grid(len(chosen))
    size = (height // rows, width // columns)
    mode = "area" if size[0] < frames.shape[1] or size[1] < frames.shape[2] else "bilinear"
    tiles = torch.nn.functional.interpolate(chosen, size, mode=mode)
    return tiles.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4).reshape(3, rows * size[0], columns * size[1])
