"""Stills that are cut into tiles: what the tower makes of them, with the place of every token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from tokcli.models.base import Part
from tokcli.models.tower import Encoding
from tokcli.types import MediaInfo, View, VisualTokens

if TYPE_CHECKING:
    from tokcli.models.tower import VisionTower


class TiledEncoding(Encoding):
    """One still on its way through a tower of one size. Made by :meth:`VisionTower.start`."""

    def __init__(self, tower: VisionTower, info: MediaInfo, size: tuple[int, int], signals: frozenset[str]) -> None:
        super().__init__(tower, info, size, signals)
        parts = tower.family.still_parts(tower.model.config, self._settings, *size)
        self._coords_of_all, self._structural = places(parts)
        self.views = tuple(part.view for part in parts)

    @property
    def encoded_views(self) -> tuple[View, ...]:
        return self.views

    def prepare(self, pixels: npt.NDArray[np.uint8]) -> Callable[[], VisualTokens]:
        """Take the still, uint8 (1, h, w, 3) of its own size, to be encoded when what this returns is called."""
        if pixels.shape != (1, *self._size, 3):
            raise ValueError(f"pixels must have shape (1, {self._size[0]}, {self._size[1]}, 3), got {pixels.shape}")
        tower = self._tower

        def run() -> VisualTokens:
            with torch.inference_mode():
                tokens, signals = tower.family.encode_still(
                    tower.model,
                    np.require(pixels, requirements=["C", "W"]),
                    self._settings,
                    tower.max_patches,
                    self._signals,
                )
                tokens, signals = tokens.cpu(), {name: signal.cpu() for name, signal in signals.items()}
            return VisualTokens(
                # Outside of inference mode, so that callers get ordinary tensors.
                tokens=tokens.clone(),
                coords=self._coords_of_all,
                views=self.views,
                structural=self._structural,
                signals={name: signal.clone() for name, signal in signals.items()},
            )

        return run


def places(parts: Sequence[Part]) -> tuple[torch.Tensor, torch.Tensor]:
    """int32 (N, 4) coordinates, and bool (N,) whether it is a separator, of the tokens of a still's parts."""
    coords = []
    for number, part in enumerate(parts):
        _, rows, columns = part.view.grid
        axes = [torch.tensor([number]), torch.tensor([0]), torch.arange(rows), torch.arange(columns + part.separated)]
        coords.append(torch.cartesian_prod(*axes).to(torch.int32))
    joined = torch.cat(coords)
    widths = torch.tensor([part.view.grid[2] for part in parts])
    return joined, joined[:, 3] == widths[joined[:, 0].long()]
