"""The compress side: a vision tower without a language model, that encodes clips in runs of frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tokcli.errors import ModelError
from tokcli.models.base import FamilyAdapter
from tokcli.models.loading import load_half
from tokcli.models.outline import outline_tower
from tokcli.models.preprocess import middle, pad_to_step, pixel_change, square_signals
from tokcli.models.settings import Preprocessing, Settings
from tokcli.models.sizing import Sizer
from tokcli.models.tiles import Tiling
from tokcli.ops.reducing import InTower
from tokcli.types import MediaInfo, View, VisualTokens

MAX_PATCHES = 4096
"""Patches given to the tower at once: memory stays bounded, and larger calls were measured to be slower."""
# Asked for by every method that reads tokens; there without being computed.
_ALWAYS = frozenset({"tokens"})
Signals = Mapping[str, torch.Tensor]


class VisionTower:
    """Vision tower and projector of one checkpoint. Made by :func:`load_tower`."""

    def __init__(
        self, model: Any, family: FamilyAdapter, preprocessing: Preprocessing, identity: Mapping[str, Any]
    ) -> None:
        self.model = model
        self.family = family
        self.preprocessing = preprocessing
        self.identity = dict(identity)
        """JSON-able; what the cache stores to know later whose tokens these are."""
        self.sizer: Sizer = preprocessing.sizer
        self.max_patches = MAX_PATCHES

    @property
    def device(self) -> torch.device:
        """Where the tower computes."""
        return next(iter(self.model.parameters())).device

    @property
    def frames_per_step(self) -> int:
        """Frames that make one temporal step of tokens."""
        return self.sizer.temporal_patch_size

    @property
    def signals(self) -> frozenset[str]:
        """Signals that :meth:`start` can be asked for."""
        return self.family.signals - self.family.withheld(self.model.config).keys()

    def without(self, signal: str) -> str:
        """Why there is no such signal, as the end of a sentence that names it."""
        reason = self.family.withheld(self.model.config).get(signal)
        why = f"; it gives {', '.join(sorted(self.signals))}" if reason is None else f": {reason}"
        return f"which {self.identity['model']} does not give{why}"

    def start(
        self,
        info: MediaInfo,
        size: tuple[int, int],
        signals: frozenset[str] = frozenset(),
        reuse: float | None = None,
        inside: InTower | None = None,
    ) -> Encoding:
        """Begin to encode an item.

        Args:
            info: The item, as it was opened.
            size: (height, width) in pixels that its frames will have, as ``sizer`` gives it for this item.
            signals: What a method wants beside the tokens.
            reuse: Take tokens of unchanged pixels from the step before: 0 where a whole step is equal, which changes
                no token; more where the pixels under a token differ by that much at most, in [0, 1] on average.
            inside: A method that reduces tokens inside the tower; not together with ``reuse``.

        Raises:
            ModelError: This family doesn't give one of the signals, or can't reuse parts of a step, or be reduced in.
            MethodError: ``inside`` can't do with this tower or with frames of that size.
        """
        unknown = sorted(signals - self.signals - _ALWAYS)
        if unknown:
            raise ModelError(
                f"the method needs the signal {unknown[0]!r}, {self.without(unknown[0])}; choose another method"
            )
        if not self.sizer.fits(info, size):
            raise ValueError(f"size must be positive multiples of {self.sizer.factor}, or the still's own, got {size}")
        if inside is not None:
            from tokcli.models.inside import InsideEncoding

            return InsideEncoding(self, info, size, signals, inside)
        if isinstance(self.preprocessing.of(info.kind).bounds, Tiling):
            from tokcli.models.tiled import TiledEncoding

            return TiledEncoding(self, info, size, signals)
        if reuse is not None and info.kind == "video":
            from tokcli.models.reuse import ReusingEncoding

            return ReusingEncoding(self, info, size, signals, reuse)
        return Encoding(self, info, size, signals)


class Encoding:
    """One item on its way through the tower. Made by :meth:`VisionTower.start`."""

    def __init__(self, tower: VisionTower, info: MediaInfo, size: tuple[int, int], signals: frozenset[str]) -> None:
        self._tower = tower
        self._settings: Settings = tower.preprocessing.of(info.kind)
        self._size = size
        self._region = tower.sizer.region(info, size)
        self._patches = tower.sizer.patches_per_step(info, size)
        self._signals = signals
        self._steps = 0
        self._chosen: tuple[int, ...] | None = None
        self._of = 0
        self._closed = False
        self._like: torch.Tensor | None = None
        self._blank: Signals = {}
        self._last_first: npt.NDArray[np.uint8] | None = None
        grid = tower.sizer.grid(info, size)
        self._kind = info.kind
        self.views: tuple[View, ...] = (View("image" if info.kind == "image" else "frames", grid),)
        """What the tokens are, by the number of frames that ``info`` announced."""
        self.seconds_per_step: float | None = None
        """Seconds of media between temporal steps; None for a still."""
        if info.kind == "video" and info.sample_fps:
            self.seconds_per_step = tower.frames_per_step / info.sample_fps

    @property
    def encoded_views(self) -> tuple[View, ...]:
        """What has been encoded so far: fewer steps than ``views`` where decoding ended early."""
        view = self.views[0]
        return (View(view.kind, (self._steps if self._chosen is None else self._of, *view.grid[1:])),)

    def choose(self, steps: Sequence[int], of: int) -> None:
        """Encode only some temporal steps: the frames that follow are those of ``steps``, ascending.

        Their tokens get the places that they have among all ``of`` steps. To be called before any frame is given.
        """
        self._chosen, self._of = tuple(steps), of

    def push(self, pixels: npt.NDArray[np.uint8]) -> VisualTokens:
        """Encode the next frames: ``prepare`` and run it at once."""
        return self.prepare(pixels)()

    def prepare(self, pixels: npt.NDArray[np.uint8]) -> Callable[[], VisualTokens]:
        """Take the next frames, to be encoded when what this returns is called.

        The calls are independent of each other: they may be made in any order and in several threads at once, which
        on a CPU uses the cores better than threads inside the tower do. ``pixels`` must stay as they are until then.

        Args:
            pixels: uint8 (n, h, w, 3) of the size given to ``start``; n a multiple of ``frames_per_step``, except in
                the last call, where the last frame is repeated to fill the step.

        Returns:
            The tokens of these frames, on the CPU, in the tower's dtype. Equal for any cutting of the item into runs.
        """
        per_step = self._tower.frames_per_step
        if pixels.ndim != 4 or len(pixels) < 1 or tuple(pixels.shape[1:]) != (*self._size, 3):
            raise ValueError(f"pixels must have shape (n, {self._size[0]}, {self._size[1]}, 3), got {pixels.shape}")
        if self._closed:
            raise ValueError(f"only the last run of frames may have a number that {per_step} doesn't divide")
        self._closed = len(pixels) % per_step != 0
        # Frames in shared memory may be read-only, which torch warns about.
        pixels = np.require(middle(pixels, self._region), requirements=["C", "W"])
        pixels = pad_to_step(pixels, per_step)
        coords = self._coords(len(pixels) // per_step)
        signals: dict[str, torch.Tensor] = {}
        if "pixel_change" in self._signals:
            change = pixel_change(self._last_first, pixels, per_step, self._tower.sizer.factor)
            signals["pixel_change"] = torch.from_numpy(change)
            self._last_first = pixels[-per_step].copy()
        if self._tower.family.of_squares:
            signals |= square_signals(self._signals, pixels[::per_step], self._tower.sizer.factor)
        self._steps += len(pixels) // per_step
        encode = self._plan(pixels)

        return lambda: self._visual(encode(), coords, signals)

    def _visual(
        self, encoded: tuple[torch.Tensor, dict[str, torch.Tensor]], coords: torch.Tensor, signals: Signals
    ) -> VisualTokens:
        tokens, from_tower = encoded
        self._like, self._blank = tokens[:0], {name: values[:0] for name, values in from_tower.items()}
        return VisualTokens(
            tokens=tokens,
            coords=coords,
            views=self.views,
            structural=torch.zeros(len(coords), dtype=torch.bool),
            signals={**signals, **from_tower},
            seconds_per_step=self.seconds_per_step,
        )

    def closing(self) -> VisualTokens | None:
        """What follows the last frame, when all were encoded: a separator, in the families that have one."""
        separator = self._tower.family.closing(self._tower.model) if self._kind == "video" else None
        if separator is None or self._like is None:
            return None
        steps, rows, columns = self.encoded_views[0].grid
        return VisualTokens(
            tokens=separator.detach()[None].to(self._like),
            coords=torch.tensor([[0, steps - 1, rows - 1, columns]], dtype=torch.int32),
            views=self.views,
            structural=torch.ones(1, dtype=torch.bool),
            signals={name: none.new_zeros(1, *none.shape[1:]) for name, none in self._blank.items()},
            seconds_per_step=self.seconds_per_step,
        )

    def _plan(self, pixels: npt.NDArray[np.uint8]) -> Callable[[], tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        """What encodes frames when it is called; frames are given here in order."""
        return partial(self._encode, pixels)

    def _encode(self, pixels: npt.NDArray[np.uint8]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        tower = self._tower
        steps_per_call = max(1, tower.max_patches // self._patches)
        run = steps_per_call * tower.frames_per_step
        parts = []
        with torch.inference_mode():
            for i in range(0, len(pixels), run):
                frames = torch.from_numpy(pixels[i : i + run]).to(tower.device)
                tokens, signals = tower.family.encode(tower.model, frames, self._settings, self._signals)
                parts.append((tokens.cpu(), {name: signal.cpu() for name, signal in signals.items()}))
        # Outside of inference mode, so that callers get ordinary tensors.
        joined = {name: torch.cat([signals[name] for _, signals in parts]) for name in parts[0][1]}
        return torch.cat([tokens for tokens, _ in parts]), joined

    def _coords(self, steps: int) -> torch.Tensor:
        _, rows, columns = self.views[0].grid
        numbers = torch.arange(self._steps, self._steps + steps)
        if self._chosen is not None:
            numbers = torch.tensor(self._chosen)[numbers]
        t, y, x = torch.meshgrid(numbers, torch.arange(rows), torch.arange(columns), indexing="ij")
        return torch.stack([torch.zeros_like(t), t, y, x], dim=-1).reshape(-1, 4).to(torch.int32)


def load_tower(name: str, *, dtype: str = "auto", device: str = "auto") -> VisionTower:
    """Open the vision half of a checkpoint; no weight of the language model is read.

    Args:
        name: "nano", a checkpoint folder, or a hub id.
        dtype: "auto" (bfloat16 for half-precision checkpoints where the device is fast in it, else float32), or one of
            "float32", "bfloat16", "float16".
        device: "auto" (CUDA if there is one, else CPU), or any torch device.

    Raises:
        ModelError: Unknown model or family, incomplete checkpoint, or a dtype or device that can't be used.
    """
    outline = outline_tower(name, dtype=dtype, device=device)
    model = load_half(outline.folder, outline.family, "vision", dtype=outline.dtype, device=outline.device)
    return VisionTower(model, outline.family, outline.preprocessing, outline.identity)
