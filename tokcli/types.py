"""The values that travel between stages: media -> Frames -> VisualTokens -> TokenSet -> cache -> CachedItem.

Shapes are checked on creation, so that no stage has to check again. Nothing here imports torch: decoder processes use
these types and must stay small. Tensors are recognised by what they offer (``shape``, ``dtype``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

MediaKind = Literal["video", "image"]
ViewKind = Literal["frames", "image", "thumbnail", "crop"]


def _check(owner: object, name: str, dtypes: tuple[str, ...], shape: tuple[int | None, ...]) -> None:
    """Raise ``ValueError`` unless field ``name`` has one of the dtypes and the shape (None: any length)."""
    array = getattr(owner, name)
    dtype = str(array.dtype).removeprefix("torch.")
    if dtypes and dtype not in dtypes:
        raise ValueError(f"{type(owner).__name__}.{name} must be {' or '.join(dtypes)}, got {dtype}")
    actual = tuple(array.shape)
    if len(actual) != len(shape) or any(want is not None and got != want for got, want in zip(actual, shape)):
        expected = tuple("any" if want is None else want for want in shape)
        raise ValueError(f"{type(owner).__name__}.{name} must have shape {expected}, got {actual}")


@dataclass(frozen=True)
class MediaItem:
    """One input as the scan found it, not opened yet."""

    id: str
    """Unique and stable over runs: the path as given, or the manifest's id column. Always valid UTF-8."""
    path: str
    """Path or URL to open; may hold surrogate escapes for names that are not UTF-8."""
    size_bytes: int
    modified_ns: int
    """Modification time in nanoseconds since the epoch; 0 where the file system tells none."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Extra manifest columns, carried into the cache."""


@dataclass(frozen=True)
class MediaInfo:
    """What opening and indexing a file told, before any frame was decoded."""

    kind: MediaKind
    width: int
    """Pixels, upright: after rotation."""
    height: int
    num_frames: int
    """Frames that the sampling will deliver; decoding may end earlier on a damaged file."""
    sample_fps: float | None
    """Frames per second of media that the sampling takes; None for a still."""
    duration_seconds: float
    """From the first frame to the end of the last, by the index of the packets; 0 for a still."""
    source_fps: float | None
    codec: str
    decoder: str
    """Name and version of what decodes, as stored in the cache."""

    def __post_init__(self) -> None:
        if min(self.width, self.height, self.num_frames) < 1:
            raise ValueError(
                f"MediaInfo needs positive sizes, got {self.width}x{self.height}, {self.num_frames} frames"
            )


@dataclass(frozen=True, repr=False)
class Frames:
    """Decoded, upright RGB frames, alpha composited."""

    pixels: npt.NDArray[np.uint8]
    """uint8 (T, H, W, 3)."""
    times: npt.NDArray[np.float64]
    """float64 (T,), seconds since the first frame of the file."""
    indices: npt.NDArray[np.int64]
    """int64 (T,), number of the frame in the source, in order of presentation."""

    def __post_init__(self) -> None:
        _check(self, "pixels", ("uint8",), (None, None, None, 3))
        _check(self, "times", ("float64",), (self.pixels.shape[0],))
        _check(self, "indices", ("int64",), (self.pixels.shape[0],))

    def __len__(self) -> int:
        return int(self.pixels.shape[0])

    def __repr__(self) -> str:
        return f"Frames({len(self)} of {self.pixels.shape[2]}x{self.pixels.shape[1]})"


@dataclass(frozen=True)
class View:
    """One rectangle of tokens that the vision tower made: all sampled frames, a thumbnail, or a crop."""

    kind: ViewKind
    grid: tuple[int, int, int]
    """(T', H', W') tokens after the tower's own merging, over the whole item."""

    @property
    def num_tokens(self) -> int:
        t, h, w = self.grid
        return t * h * w


@dataclass(frozen=True)
class Reduced:
    """What a method inside the vision tower left of a run of temporal steps, beside the tokens."""

    rows: int
    """N: tokens that the tower gives of these steps when nothing is left out."""
    source: torch.Tensor
    """int64 (K,): the row of the N that each was or is anchored on, ascending."""
    mass: torch.Tensor
    """float32 (K,): how many of the N each stands for."""
    assignment: torch.Tensor | None = None
    """int32 (N,): the kept row that each went into, -1 for dropped; None for pure selection."""

    def __post_init__(self) -> None:
        _check(self, "source", ("int64",), (None,))
        _check(self, "mass", ("float32",), (len(self),))
        if self.assignment is not None:
            _check(self, "assignment", ("int32",), (self.rows,))

    def __len__(self) -> int:
        return int(self.source.shape[0])


@dataclass(frozen=True, repr=False)
class VisualTokens:
    """Tokens as the language model receives them, of a whole item or of a run of its temporal steps."""

    tokens: torch.Tensor
    """Float (N, D), after projector or merger, rows in (view, t, y, x) order."""
    coords: torch.Tensor
    """int32 (N, 4): view, t, y, x; t counts from the start of the item, also in a chunk."""
    views: tuple[View, ...]
    """What each view is; grids are those of the whole item."""
    structural: torch.Tensor
    """bool (N,): rows such as newlines that no method scores or drops."""
    signals: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Arrays with N rows that a method asked for, e.g. ``pixel_change`` float32 (N,).

    ``deepstack``, (N, L, D) in the dtype of ``tokens``, is there unasked where the language model takes such levels.
    """
    seconds_per_step: float | None = None
    """Seconds of media between temporal steps; None for a still."""
    reduced: Reduced | None = None
    """Where the tower itself left out tokens: whose the rows are. None where they are all that there are."""

    def __post_init__(self) -> None:
        rows = int(self.tokens.shape[0])
        _check(self, "tokens", ("float32", "float16", "bfloat16", "float64"), (None, None))
        _check(self, "coords", ("int32",), (rows, 4))
        _check(self, "structural", ("bool",), (rows,))
        if self.reduced is not None and len(self.reduced) != rows:
            raise ValueError(f"VisualTokens.reduced must have {rows} rows, got {len(self.reduced)}")
        for name, signal in self.signals.items():
            if signal.shape[0] != rows:
                raise ValueError(f"signal {name!r} must have {rows} rows, got {tuple(signal.shape)}")

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    def __repr__(self) -> str:
        return f"VisualTokens({len(self)}x{self.tokens.shape[1]}, views={self.views})"


@dataclass(frozen=True, repr=False)
class TokenSet:
    """The tokens that a method kept or made, rows in (view, t, y, x) order."""

    tokens: torch.Tensor
    """Float (K, D)."""
    coords: torch.Tensor
    """int32 (K, 4): view, t, y, x of the source row, or of the anchor of a merged one."""
    mass: torch.Tensor
    """float32 (K,): how many source tokens each row stands for."""
    source: torch.Tensor
    """int64 (K,): the row of the item's full token list that each was or is anchored on."""
    assignment: torch.Tensor | None = None
    """int32 (N,): the kept row that each source row went into, -1 for dropped; None for pure selection."""
    stats: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Small 1-D arrays about the item, stored with it, e.g. dtd's ``drop_ratio`` by temporal step."""
    deepstack: torch.Tensor | None = None
    """Float (K, L, D): what the language model adds to each token at its first L layers; None where it adds nothing."""

    def __post_init__(self) -> None:
        rows = int(self.tokens.shape[0])
        _check(self, "tokens", ("float32", "float16", "bfloat16", "float64"), (None, None))
        _check(self, "coords", ("int32",), (rows, 4))
        _check(self, "mass", ("float32",), (rows,))
        _check(self, "source", ("int64",), (rows,))
        if self.assignment is not None:
            _check(self, "assignment", ("int32",), (None,))
        if self.deepstack is not None:
            dtype = str(self.tokens.dtype).removeprefix("torch.")
            _check(self, "deepstack", (dtype,), (rows, None, int(self.tokens.shape[1])))

    def __len__(self) -> int:
        return int(self.tokens.shape[0])

    def __repr__(self) -> str:
        return f"TokenSet({len(self)}x{self.tokens.shape[1]}, mass {float(self.mass.sum()):g})"

    @property
    def levels(self) -> int:
        """L: DeepStack levels beside each token, 0 where there are none."""
        return 0 if self.deepstack is None else int(self.deepstack.shape[1])


@dataclass(frozen=True)
class EncodedItem:
    """One compressed item with all that can't be rebuilt later: what the cache stores and gives back."""

    id: str
    path: str
    kind: MediaKind
    kept: TokenSet
    views: tuple[View, ...]
    source_tokens: int
    """Tokens of the item before any method (at full resolution for methods that shrink the frame)."""
    times: npt.NDArray[np.float64]
    """float64 (T,): seconds of every frame that was encoded."""
    indices: npt.NDArray[np.int64]
    """int64 (T,): their numbers in the source."""
    frame_size: tuple[int, int]
    """(height, width) in pixels given to the tower."""
    source_size: tuple[int, int]
    """(height, width) in pixels of the upright source."""
    duration_seconds: float
    source_fps: float | None
    sample_fps: float | None
    seconds_per_step: float | None
    codec: str
    decoder: str
    source_bytes: int
    source_modified_ns: int
    source_hash: str
    """blake3 of the file's content, 64 hex digits."""
    bad_packets: int = 0
    corrupt_frames: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
