"""Stills of several views and tiles for the tests of the methods for stills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from method_items import still, with_signals

from tokcli.methods import resolve
from tokcli.types import TokenSet, View, VisualTokens


def filled(visual: VisualTokens, seed: int = 0) -> VisualTokens:
    """With random tokens and signals."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(len(visual), 16, generator=generator)
    return with_signals(replace(visual, tokens=tokens), generator)


def some(visual: VisualTokens, rows: torch.Tensor, views: tuple[View, ...] | None = None) -> VisualTokens:
    """Those rows alone; of views of their own if given."""
    coords = visual.coords[rows].clone()
    if views is not None:
        coords[:, :2] = 0
    return VisualTokens(
        visual.tokens[rows],
        coords,
        views or visual.views,
        visual.structural[rows],
        {name: values[rows] for name, values in visual.signals.items()},
    )


def tiled(*, rows: int = 2, columns: int = 3, cut: tuple[int, int] = (1, 0), seed: int = 0) -> VisualTokens:
    """A thumbnail of 4 x 4, and a canvas of tiles of that size, cut by so many rows and columns on either side."""
    height, width = rows * 4 - 2 * cut[0], columns * 4 - 2 * cut[1]
    item = still(np.zeros((16 + height * (width + 1), 1)), [(4, 4), (height, width + 1)], ("thumbnail", "crop"))
    newline = (item.coords[:, 0] == 1) & (item.coords[:, 3] == width)
    views = (View("thumbnail", (1, 4, 4)), View("crop", (1, height, width)))
    return filled(replace(item, views=views, structural=newline), seed)


def kept_of(visual: VisualTokens, name: str, options: Mapping[str, Any], **budget: Any) -> TokenSet:
    return resolve(name, options=options, **budget).compress(visual, "item")
