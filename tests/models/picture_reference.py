"""What towers that take pictures of one size should give as signals: eager attention, and tiles stitched by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import idefics_tiny
import numpy as np
import torch
from eager_reference import Pictures, eager_pictures
from family_tiny import Tiny, planes, resized
from gemma_tiny import GEMMA3
from idefics_tiny import IDEFICS3, SMOLVLM
from next_tiny import NEXT, NEXT_VIDEO
from tiles_tiny import INTERNVL, ONEVISION, PINPOINTS, SIDE, TOKENS, anyres, canvas

Values = torch.Tensor
Stitch = Callable[[Values, tuple[int, int]], Values]


@dataclass(frozen=True)
class Case:
    """What is done to pictures before the tower and to their tokens after it."""

    tiny: Tiny
    cut: Callable[[np.ndarray], torch.Tensor]
    """Planes of the pictures of a still."""
    stitch: Stitch
    """Rows (N, C) of a still of a size from those of its pictures, (n, tokens, C)."""
    cls: bool = False
    block: int = -1
    side: int = SIDE
    members: Callable[[Any, int], torch.Tensor] = lambda native, patches: torch.eye(patches)
    """(tokens, patches): the share that each patch has in a token, by the model's own code."""
    frames: Callable[[Values], Values] = lambda values: values
    """Rows (n, fewer, C) of frames of a video from (n, tokens, C)."""


def canvas_of(values: Values, rows: int, columns: int) -> Values:
    """(rows, columns, C) of tokens from those of tiles, one after another."""
    side = math.isqrt(values.shape[1])
    whole = torch.zeros(rows * side, columns * side, values.shape[2])
    for tile, content in enumerate(values):
        top, left = tile // columns * side, tile % columns * side
        whole[top : top + side, left : left + side] = content.view(side, side, -1)
    return whole


def next_canvas(values: Values, size: tuple[int, int]) -> Values:
    """What is left of the canvas without its padding, by the authors' rule."""
    from transformers.image_processing_utils import select_best_resolution

    height, width = size
    best = select_best_resolution(size, PINPOINTS)
    rows, columns = best[0] // SIDE, best[1] // SIDE
    whole = canvas_of(values[1:], rows, columns)
    if width / height > columns / rows:
        pad = (rows * TOKENS - int(height * columns * TOKENS / width)) // 2
        return whole[pad : rows * TOKENS - pad]
    pad = (columns * TOKENS - int(width * rows * TOKENS / height)) // 2
    return whole[:, pad : columns * TOKENS - pad]


def with_newlines(values: Values, kept: Values) -> Values:
    """The thumbnail, then the rows of the canvas, each with zeros behind it."""
    rows = [torch.cat([row, torch.zeros(1, values.shape[2])]) for row in kept]
    return torch.cat([values[0], *rows])


def onevision_canvas(values: Values, size: tuple[int, int]) -> Values:
    kept = next_canvas(values, size)
    ratio = math.sqrt(kept.shape[0] * kept.shape[1] / (6 * TOKENS**2))
    if ratio <= 1.1:
        return kept
    smaller = [int(kept.shape[0] // ratio), int(kept.shape[1] // ratio)]
    return bilinear(kept, smaller)


def bilinear(values: Values, size: list[int]) -> Values:
    """(rows, columns, C) to another size, each number the mean of its four nearest by their distance."""
    for axis, wanted in enumerate(size):
        length = values.shape[axis]
        centres = (torch.arange(wanted) + 0.5) * length / wanted - 0.5
        low = centres.clamp(0, length - 1).floor().long()
        share = (centres.clamp(0, length - 1) - low).view(-1, *[1] * (values.dim() - axis - 1))
        high = (low + 1).clamp(max=length - 1)
        values = values.index_select(axis, low) * (1 - share) + values.index_select(axis, high) * share
    return values


def idefics_stitch(values: Values, size: tuple[int, int]) -> Values:
    rows, columns, _ = idefics_tiny.tiles(np.zeros((1, *size, 3), dtype=np.uint8))
    if len(values) == 1:
        return values[0]
    return torch.cat([canvas_of(values[:-1], rows, columns).flatten(0, 1), values[-1]])


def internvl_members(native: Any, patches: int) -> torch.Tensor:
    side = math.isqrt(patches)
    shuffled = native.model.pixel_shuffle(torch.arange(patches).view(1, side, side, 1), scale_factor=0.5)
    return shares(shuffled.flatten(0, 2), patches)


def idefics_members(native: Any, patches: int) -> torch.Tensor:
    shuffled = native.model.connector.pixel_shuffle(torch.arange(patches).view(1, patches, 1), idefics_tiny.SCALE)
    return shares(shuffled[0], patches)


def gemma_members(native: Any, patches: int) -> torch.Tensor:
    side = math.isqrt(patches)
    pooled: torch.Tensor = native.model.multi_modal_projector.avg_pool(torch.eye(patches).view(patches, side, side))
    return pooled.flatten(1).T


def shares(members: torch.Tensor, patches: int) -> torch.Tensor:
    """From the numbers of each token's patches (tokens, n) to (tokens, patches)."""
    return torch.nn.functional.one_hot(members, patches).float().mean(dim=1)


def halved(values: Values) -> Values:
    """The mean of each square of four."""
    side = math.isqrt(values.shape[1])
    squares = [
        [
            values.view(-1, side, side, values.shape[2])[:, y : y + 2, x : x + 2].mean(dim=(1, 2))
            for x in range(0, side, 2)
        ]
        for y in range(0, side, 2)
    ]
    return torch.stack([square for row in squares for square in row], dim=1)


def pooled_bilinearly(values: Values) -> Values:
    side = math.isqrt(values.shape[1])
    return torch.stack([bilinear(frame.view(side, side, -1), [side // 2, side // 2]).flatten(0, 1) for frame in values])


def idefics_cut(still: np.ndarray) -> torch.Tensor:
    return planes(np.stack(idefics_tiny.tiles(still)[2]))


def one_after_another(values: Values, size: tuple[int, int]) -> Values:
    return values.flatten(0, 1)


def next_stitch(values: Values, size: tuple[int, int]) -> Values:
    return with_newlines(values, next_canvas(values, size))


def onevision_stitch(values: Values, size: tuple[int, int]) -> Values:
    return with_newlines(values, onevision_canvas(values, size))


def squeezed(still: np.ndarray) -> torch.Tensor:
    return planes(resized(still, SIDE, SIDE))


CASES = {
    case.tiny.family: case
    for case in (
        Case(NEXT, anyres, next_stitch, cls=True, block=-2),
        Case(NEXT_VIDEO, anyres, next_stitch, cls=True, block=-2, frames=halved),
        Case(ONEVISION, anyres, onevision_stitch, frames=pooled_bilinearly),
        Case(INTERNVL, canvas, one_after_another, cls=True, members=internvl_members),
        Case(IDEFICS3, idefics_cut, idefics_stitch, side=idefics_tiny.SIDE, members=idefics_members),
        Case(SMOLVLM, idefics_cut, idefics_stitch, side=idefics_tiny.SIDE, members=idefics_members),
        Case(GEMMA3, squeezed, one_after_another, members=gemma_members),
    )
}


def of_pictures(case: Case, native: Any, pictures: torch.Tensor) -> dict[str, Values]:
    """All signals of pictures as (n, tokens, C)."""
    tower = native.model.vision_model if case.side == idefics_tiny.SIDE else native.model.vision_tower
    depth = len(getattr(tower.encoder, "layers", None) or tower.encoder.layer)
    run: Pictures = eager_pictures(tower, pictures, case.block % depth, cls=case.cls)
    # Of the last block LLaVA-OneVision takes what comes out of it, the others what the tower gives.
    last = run.last if case.block == -1 and case.tiny is not ONEVISION else run.states[case.block % depth + 1]
    features = last[:, case.cls :]
    members = case.members(native, features.shape[1])

    def pool(values: torch.Tensor) -> torch.Tensor:
        return torch.tensordot(members, values, dims=1)

    by_picture = [frame.signals(pool) for frame in run.frames]
    found = {name: torch.stack([signals[name] for signals in by_picture]) for name in by_picture[0]}
    found["pre_projector"] = torch.stack([pool(picture) for picture in features])
    return found


def carried(values: Values, change: Callable[[Values], Values]) -> Values:
    return change(values) if values.dim() == 3 else change(values[..., None])[..., 0]
