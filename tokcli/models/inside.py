"""Items whose tokens a method reduces inside the tower: fewer rows come out, each with what it stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from tokcli.errors import ModelError
from tokcli.models.in_tower import Left, check_plan, encode_inside
from tokcli.models.sizing import FixedGrid, FixedSize
from tokcli.models.tower import Encoding, Signals, VisionTower
from tokcli.ops.reducing import PROTECTED, Act, InTower
from tokcli.types import MediaInfo, Reduced, VisualTokens

ANY_GRID = (48, 48)
"""Rows and columns with which methods are tried where the tower takes frames of any size."""
Encoded = tuple[torch.Tensor, dict[str, torch.Tensor]]
_SIGNALS = frozenset({"tokens", "pixel_change"})


class InsideEncoding(Encoding):
    """One item on its way through a tower with a method inside. Made by :meth:`VisionTower.start`."""

    def __init__(
        self, tower: VisionTower, info: MediaInfo, size: tuple[int, int], signals: frozenset[str], inside: InTower
    ) -> None:
        """Raises ``ModelError``, ``MethodError`` where the tower can't be reduced in, or not like that."""
        _check_signals(signals)
        super().__init__(tower, info, size, signals)
        _, rows, columns = self.views[0].grid
        self._blocks = tower.family.in_tower(tower.model, self._settings, (rows, columns))
        self._inside = inside
        check_plan(self._blocks.shape, inside)
        self._acts: Mapping[int, Act] | None = None

    def _plan(self, pixels: npt.NDArray[np.uint8]) -> Callable[[], Encoded]:
        """Raises ``MethodError`` where so many frames can't have their part of a budget for the item."""
        if self._acts is None:
            # Not before: some frames may have been chosen of those that were announced.
            steps = self.views[0].grid[0] if self._chosen is None else len(self._chosen)
            self._acts = check_plan(replace(self._blocks.shape, steps=steps), self._inside)
        return partial(self._encode_inside, pixels, self._acts)

    def _encode_inside(self, pixels: npt.NDArray[np.uint8], acts: Mapping[int, Act]) -> Encoded:
        """Tokens, and the fields of ``Left`` by name."""
        tower = self._tower
        steps = 1 if self._inside.by_content else max(1, tower.max_patches // self._patches)
        run = steps * tower.frames_per_step
        parts: list[Left] = []
        with torch.inference_mode():
            for i in range(0, len(pixels), run):
                frames = torch.from_numpy(pixels[i : i + run]).to(tower.device)
                parts.append(encode_inside(self._blocks, frames, self._inside, acts))
        rows = kept = 0
        source, assignment = [], []
        for part in parts:
            source.append(part.source.cpu() + rows)
            assignment.append(torch.where(part.assignment < 0, -1, part.assignment + kept).cpu())
            rows, kept = rows + len(part.assignment), kept + len(part.source)
        protected = [part.protected.cpu() for part in parts if part.protected is not None]
        # Outside of inference mode, so that callers get ordinary tensors.
        return torch.cat([part.tokens.cpu() for part in parts]), {
            "source": torch.cat(source),
            "mass": torch.cat([part.mass.cpu() for part in parts]),
            "assignment": torch.cat(assignment).to(torch.int32),
            **({PROTECTED: torch.cat(protected)} if protected else {}),
        }

    def _visual(self, encoded: Encoded, coords: torch.Tensor, signals: Signals) -> VisualTokens:
        tokens, left = encoded
        source, flags = left["source"], {name: left[name] for name in {PROTECTED} & left.keys()}
        return VisualTokens(
            tokens=tokens,
            coords=coords[source],
            views=self.views,
            structural=torch.zeros(len(source), dtype=torch.bool),
            signals={name: values[source] for name, values in signals.items()} | flags,
            seconds_per_step=self.seconds_per_step,
            reduced=Reduced(
                rows=len(coords),
                source=source,
                mass=left["mass"],
                assignment=left["assignment"] if self._inside.merges else None,
            ),
        )


def check_inside(tower: VisionTower, inside: InTower, signals: frozenset[str] = frozenset()) -> None:
    """Refuse what can be refused before there is an item. Raises ``ModelError``, ``MethodError``."""
    _check_signals(signals)
    grid, steps = ANY_GRID, None
    if isinstance(tower.preprocessing.of("video").bounds, FixedSize | FixedGrid):
        info = MediaInfo("video", 640, 480, 1, 1.0, 1.0, None, "", "")
        _, *sides = tower.sizer.grid(info, tower.sizer(info))
        grid, steps = (sides[0], sides[1]), 1
    shape = tower.family.in_tower(tower.model, tower.preprocessing.of("video"), grid).shape
    check_plan(replace(shape, steps=steps), inside)


def _check_signals(signals: frozenset[str]) -> None:
    for signal in sorted(signals - _SIGNALS):
        raise ModelError(
            f"the signal {signal!r} is not there after a method inside the tower, which leaves some tokens only; "
            "combine it with methods that need no signal but pixel_change"
        )
