"""Rows of a flat token list as frames of a grid, whether every place is filled or a method before left gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tokcli.types import VisualTokens


@dataclass(frozen=True)
class Block:
    """The rows of one view as (T, P): its temporal steps that have rows, by the P = H' * W' places of its grid."""

    view: int
    steps: torch.Tensor
    """int64 (T,), ascending."""
    rows: torch.Tensor
    """int64 (T, P): the row of the token at each place; -1 where there is none."""
    complete: bool
    """Whether every place of these steps has a row."""

    @property
    def present(self) -> torch.Tensor:
        """bool (T, P)."""
        return self.rows >= 0

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Arrange (N, ...) values by place: (T, P, ...), zeros where there is no row. No copy where none is needed."""
        rows = self.rows
        if not self.complete:
            gathered = values[rows.clamp_min(0)]
            gathered[rows < 0] = 0
            return gathered
        first, last = int(rows[0, 0]), int(rows[-1, -1])
        if last - first + 1 == rows.numel():
            return values[first : last + 1].view(*rows.shape, *values.shape[1:])
        return values[rows]


def blocks(visual: VisualTokens) -> list[Block]:
    """The rows that are not structural, a block for each view that has any, in the order of the views."""
    coords = visual.coords.to(torch.int64)
    scored = ~visual.structural
    found = []
    for view, description in enumerate(visual.views):
        rows = torch.nonzero((coords[:, 0] == view) & scored).flatten()
        if rows.numel() == 0:
            continue
        _, height, width = description.grid
        _, step, y, x = coords[rows].unbind(dim=1)
        steps, frame = torch.unique(step, return_inverse=True)
        places = torch.full((steps.numel(), height * width), -1, dtype=torch.int64)
        places[frame, y * width + x] = rows
        found.append(Block(view, steps, places, complete=rows.numel() == places.numel()))
    return found


@dataclass(frozen=True)
class Frame:
    """A temporal step of a view."""

    rows: torch.Tensor
    """int64 (P,), ascending: its rows that are not structural."""
    moving: bool
    """Whether it is one of a video's frames, not a single picture."""


def frames_of(visual: VisualTokens) -> list[Frame]:
    """The frames of all views, in their order."""
    return [
        Frame(rows[rows >= 0], visual.views[block.view].grid[0] > 1) for block in blocks(visual) for rows in block.rows
    ]


def steps_of(visual: VisualTokens) -> list[torch.Tensor]:
    """The rows that are not structural, int64 (n,) for each temporal step of each view that has any, in order."""
    rows = torch.nonzero(~visual.structural).flatten()
    if rows.numel() == 0:
        return []
    # NumPy's calls are shorter than torch's, and there are little numbers but many calls for a still.
    view, step, _, _ = take(visual.coords, rows).numpy().T
    ends = np.flatnonzero((view[1:] != view[:-1]) | (step[1:] != step[:-1])) + 1
    return list(rows.tensor_split(ends.tolist()))


def clips_of(visual: VisualTokens, length: int) -> list[list[torch.Tensor]]:
    """:func:`steps_of` in clips of up to ``length`` neighbouring steps, none of them over two views."""
    clips: list[list[torch.Tensor]] = []
    last = -1
    for rows in steps_of(visual):
        view = int(visual.coords[rows[0], 0])
        if view != last or len(clips[-1]) == length:
            clips.append([])
        clips[-1].append(rows)
        last = view
    return clips


def take(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """``values[rows]`` for ascending rows, at least one, without a copy where they follow one another."""
    first, last = int(rows[0]), int(rows[-1])
    return values[first : last + 1] if last - first + 1 == rows.numel() else values[rows]
