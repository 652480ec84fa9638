"""Frames that wait until the clip is read to its end, because only then it is known which of them to encode."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tokcli.methods import FrameChoice
from tokcli.models import Encoding
from tokcli.models.describing import Describe
from tokcli.ops.frames import Floats
from tokcli.pipeline.spool import TokenSpool
from tokcli.types import TokenSet, View, VisualTokens

STEPS_AT_A_TIME = 8
"""Temporal steps that are encoded in one call."""


class Keyframing:
    """The frames of one clip, spooled as they come, and the choice among them."""

    def __init__(
        self, choice: FrameChoice, describe: Describe, encoding: Encoding, frames_per_step: int, folder: Path
    ) -> None:
        """``folder`` is where frames lie that are too many for memory."""
        self._choice, self._describe, self._encoding = choice, describe, encoding
        self._per_step = frames_per_step
        self._spool = TokenSpool(folder)
        self._shape: tuple[int, ...] = ()
        self._features: list[Floats] = []
        self._chosen: list[int] = []
        self._waiting: deque[int] | None = None
        self._frames: torch.Tensor | None = None
        self.outstanding = 0
        """Calls of ``runs`` whose tokens have not come back."""

    def describe(self, pixels: npt.NDArray[np.uint8]) -> Callable[[], Floats]:
        """Take uint8 (n, h, w, 3) frames; calling the result describes them, in any thread."""
        return lambda: self._describe(pixels)

    def collect(self, features: Floats, pixels: npt.NDArray[np.uint8]) -> None:
        """Keep the frames of a chunk; chunks must come in order."""
        self._shape = pixels.shape[1:]
        self._features.append(features)
        # A copy: the pixels lie in a buffer that the decoder gets back.
        self._spool.append(torch.from_numpy(pixels.reshape(len(pixels), -1).copy()))

    def runs(self, most: int) -> Iterator[Callable[[], VisualTokens]]:
        """What encodes the chosen steps, in any thread: the next calls, until ``most`` are outstanding.

        Raises ``MethodError`` for a budget that the clip cannot meet. All frames must have been collected.
        """
        if self._waiting is None:
            self._waiting = self._choose()
        while self._waiting and self.outstanding < most:
            steps = [self._waiting.popleft() for _ in range(min(STEPS_AT_A_TIME, len(self._waiting)))]
            self.outstanding += 1
            yield self._encoding.prepare(self._frames_of(steps))

    def _choose(self) -> deque[int]:
        features = np.concatenate(self._features)
        planned = self._encoding.views[0]
        view = View(planned.kind, (len(features), *planned.grid[1:]))
        self._chosen = self._choice.choose(features, view).tolist()
        self._encoding.choose(self._chosen, len(features))
        self._frames = self._spool.tensor()
        return deque(self._chosen)

    def _frames_of(self, steps: list[int]) -> npt.NDArray[np.uint8]:
        assert self._frames is not None
        wanted = [frame for step in steps for frame in range(step * self._per_step, (step + 1) * self._per_step)]
        chosen: npt.NDArray[np.uint8] = self._frames[[frame for frame in wanted if frame < len(self._frames)]].numpy()
        return chosen.reshape(-1, *self._shape)

    def in_clip(self, kept: TokenSet, num_encoded: int) -> TokenSet:
        """What was kept of the ``num_encoded`` rows that were encoded, in terms of all rows that the clip would have.

        Rows beyond those of the chosen steps are separators that follow the last one.
        """
        steps, height, width = self._encoding.encoded_views[0].grid
        per_step = height * width
        places = (torch.tensor(self._chosen)[:, None] * per_step + torch.arange(per_step)).flatten()
        separators = num_encoded - len(places)
        rows = torch.cat([places, steps * per_step + torch.arange(separators)])
        assignment = None
        if kept.assignment is not None:
            assignment = torch.full((steps * per_step + separators,), -1, dtype=torch.int32)
            assignment[rows] = kept.assignment
        return replace(kept, source=rows[kept.source], assignment=assignment)

    @property
    def num_left_out(self) -> int:
        """Tokens of the steps that were not chosen."""
        steps, height, width = self._encoding.encoded_views[0].grid
        return (steps - len(self._chosen)) * height * width

    def close(self) -> None:
        self._spool.close()
