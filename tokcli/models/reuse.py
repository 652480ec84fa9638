"""What didn't change isn't encoded again: its tokens are those of the step before.

A tower looks at each temporal step alone, and at all of it: so a step that equals the one before has the same tokens,
and only such whole steps can be left out without changing anything. That is what threshold 0 does. A larger threshold
leaves out single tokens, as RLT (arXiv:2411.05222) does: what changed is encoded without the rest of the frame, which
changes it a little, and what didn't change keeps tokens that saw the old frame.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from tokcli.errors import ModelError
from tokcli.models.memory import out_of_memory
from tokcli.models.tower import Encoding, VisionTower
from tokcli.models.units import UnitAdapter
from tokcli.types import MediaInfo

Encoded = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""Tokens (n, D), and signals with n rows by name."""
Mask = npt.NDArray[np.bool_]


class ReusingEncoding(Encoding):
    """A video on its way through the tower, in which tokens whose pixels are unchanged are taken from before.

    Which tokens those are is known as soon as frames are taken, in order; calling what ``prepare`` gives encodes the
    others at once and asks the run before for the rest, so calls may still be made in any order and in several threads.
    """

    def __init__(
        self, tower: VisionTower, info: MediaInfo, size: tuple[int, int], signals: frozenset[str], threshold: float
    ) -> None:
        """Raises ``ModelError`` where the tower can't leave out single tokens, as a threshold above 0 asks for."""
        super().__init__(tower, info, size, signals)
        if threshold > 0:
            check_takes_units(tower)
        self._threshold = threshold
        self._before: _Run | None = None
        self._reference: npt.NDArray[np.uint8] | None = None
        self.tokens = self.reused = 0
        """How many tokens there were so far, and how many of them were taken from before."""

    def _plan(self, pixels: npt.NDArray[np.uint8]) -> Callable[[], Encoded]:
        per_step = self._tower.frames_per_step
        steps = pixels.reshape(-1, per_step, *pixels.shape[1:])
        fresh = np.stack([self._look(step) for step in steps])
        self.tokens += fresh.size
        self.reused += fresh.size - int(fresh.sum())
        self._before = _Run(partial(self._encode_fresh, steps, fresh), fresh, self._before)
        return self._before.result

    def _look(self, step: npt.NDArray[np.uint8]) -> Mask:
        """bool (rows, columns): what to encode of a step uint8 (frames, h, w, 3)."""
        _, rows, columns = self.views[0].grid
        if self._reference is None or (self._threshold == 0 and not np.array_equal(step, self._reference)):
            self._reference = step.copy()
            return np.ones((rows, columns), dtype=bool)
        if self._threshold == 0:
            return np.zeros((rows, columns), dtype=bool)
        fresh = unit_change(self._reference, step, self._tower.sizer.factor) > self._threshold
        factor = self._tower.sizer.factor
        # Not the step before: where little changes in each step, the tokens would fall behind without end.
        np.copyto(self._reference, step, where=fresh.repeat(factor, axis=0).repeat(factor, axis=1)[None, :, :, None])
        return fresh

    def _encode_fresh(self, steps: npt.NDArray[np.uint8], fresh: Mask) -> Encoded | None:
        some = fresh.any(axis=(1, 2))
        if not some.any():
            return None
        frames, chosen = steps[some], fresh[some]
        if chosen.all():
            return self._encode(frames.reshape(-1, *frames.shape[2:]))
        tower, family = self._tower, self._tower.family
        assert isinstance(family, UnitAdapter)
        parts = []
        with torch.inference_mode():
            for run in _packed(chosen.sum(axis=(1, 2)), tower.max_patches // tower.sizer.merge_size**2):
                pixels = torch.from_numpy(frames[run].reshape(-1, *frames.shape[2:])).to(tower.device)
                tokens, signals = family.encode_units(
                    tower.model, pixels, self._settings, self._signals, torch.from_numpy(chosen[run])
                )
                parts.append((tokens.cpu(), {name: values.cpu() for name, values in signals.items()}))
        return _joined(parts)


class _Run:
    """The tokens of a run of steps: computed once, by whoever needs them first."""

    def __init__(self, encode: Callable[[], Encoded | None], fresh: Mask, before: _Run | None) -> None:
        self._encode: Callable[[], Encoded | None] | None = encode
        self._before = before
        self._lock = threading.RLock()
        self._fresh: Encoded | None = None
        self._whole: Encoded | None = None
        steps, places = len(fresh), fresh[0].size
        flat = fresh.reshape(steps, places)
        number = np.where(flat, flat.cumsum().reshape(steps, places) - 1, -1)
        # Of each place the last that was encoded; below 0 it is that of the run before.
        self._rows = torch.from_numpy(np.maximum.accumulate(number, axis=0))
        self._places = places

    def result(self) -> Encoded:
        """The run's tokens in order."""
        self._encode_now()
        unfinished: list[_Run] = []
        run: _Run | None = self
        while run is not None and run._whole is None:
            unfinished.append(run)
            run = run._before
        for run in reversed(unfinished):
            run._finish()
        assert self._whole is not None
        return self._whole

    def _encode_now(self) -> None:
        with self._lock:
            if self._encode is None:
                return
            # With it go the pixels, which lie in memory that is used again once this run was asked for and has failed
            # for good.
            encode, self._encode = self._encode, _given_up
            try:
                self._fresh = encode()
            except (RuntimeError, MemoryError) as error:
                if isinstance(error, MemoryError) or out_of_memory(error):
                    # Whoever asked may ask again, for less at once. If that fails too so does the item, and what later
                    # runs make of pixels that are gone is not looked at.
                    self._encode = encode
                raise
            self._encode = None

    def _finish(self) -> None:
        with self._lock:
            if self._whole is not None:
                return
            self._encode_now()
            parts = [] if self._fresh is None else [self._fresh]
            carried = 0
            if self._before is not None:
                assert self._before._whole is not None
                parts.insert(0, _last_rows(self._before._whole, self._places))
                carried = self._places
            place = torch.arange(self._places).expand_as(self._rows)
            index = torch.where(self._rows < 0, place, self._rows + carried).flatten()
            tokens, signals = _joined(parts)
            self._whole = tokens[index], {name: values[index] for name, values in signals.items()}
            self._before = self._fresh = None


def _given_up() -> Encoded | None:
    raise ModelError("frames before these could not be encoded")


def check_takes_units(tower: VisionTower) -> None:
    """Raise ``ModelError`` for a tower that can only encode whole frames."""
    if not isinstance(tower.family, UnitAdapter):
        raise ModelError(
            f"{tower.identity['family']} towers encode whole frames only, so nothing but whole frames that are exactly "
            "equal can be left out; use threshold 0"
        )


def unit_change(before: npt.NDArray[np.uint8], after: npt.NDArray[np.uint8], factor: int) -> npt.NDArray[np.float64]:
    """Mean absolute difference in [0, 1] of each token's square, over all frames of a step: (rows, columns).

    Both steps are uint8 (frames, h, w, 3), compared frame by frame; ``factor`` is the side of a square in pixels.
    """
    frames, height, width, channels = after.shape
    difference = np.maximum(after, before) - np.minimum(after, before)
    by_row = difference.reshape(frames, height // factor, factor, width * channels).sum(axis=(0, 2), dtype=np.uint32)
    sums = by_row.reshape(height // factor, width // factor, factor * channels).sum(axis=2, dtype=np.int64)
    return sums / (frames * factor * factor * channels * 255)


def _packed(sizes: npt.NDArray[np.int64], most: int) -> list[slice]:
    """Runs of steps whose sizes add up to ``most`` at most, or that are one step."""
    runs, first, filled = [], 0, 0
    for number, size in enumerate(sizes.tolist()):
        if number > first and filled + size > most:
            runs.append(slice(first, number))
            first, filled = number, 0
        filled += size
    return [*runs, slice(first, len(sizes))]


def _joined(parts: list[Encoded]) -> Encoded:
    names = parts[0][1]
    tokens = torch.cat([tokens for tokens, _ in parts])
    return tokens, {name: torch.cat([signals[name] for _, signals in parts]) for name in names}


def _last_rows(encoded: Encoded, count: int) -> Encoded:
    tokens, signals = encoded
    return tokens[-count:], {name: values[-count:] for name, values in signals.items()}
