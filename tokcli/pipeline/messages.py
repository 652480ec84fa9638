"""What the supervisor and a decoder process say to each other. Everything here is small and picklable.

Supervisor to decoder: the ``DecodeSettings`` once, then a ``Task``, the number of a frame slot that is free again,
or None (end).
Decoder to supervisor: ``Ready`` once, then for each task ``Opened``, any number of ``Chunk``, and ``Finished`` or
``Failed``. For a task that probes: any number of ``Found``, of which the last is the end, or ``Failed``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tokcli.media import Limits, Sampling
from tokcli.types import MediaInfo

Stage = Literal["scan", "fetch", "open", "decode", "encode", "method"]
FrameSize = Callable[[MediaInfo], tuple[int, int]]


@dataclass(frozen=True)
class DecodeSettings:
    """The same for all items of a run."""

    sampling: Sampling
    limits: Limits
    decoder: str
    frame_size: FrameSize
    """Gives (height, width) in pixels of what the tower wants; must be picklable and must not need torch."""
    resample: str
    """Filter of the model's own resizing kernel."""
    resize_in_decoder: bool
    """Let the decoder's own converter resize (faster, other pixels) instead of the model's reference kernel."""
    frames_per_step: int
    max_steps: int = 8
    """Temporal steps in one chunk: 1 to 8 in one tower call were measured fastest."""


@dataclass(frozen=True)
class Task:
    path: str
    probe: bool = False
    """Find out all about the file, and hand over no frames."""


@dataclass(frozen=True)
class Ready:
    """The process has imported what it needs."""


@dataclass(frozen=True)
class Opened:
    info: MediaInfo
    size: tuple[int, int]
    most_lent: int
    """Chunks that may be away at a time: fewer than there are slots where frames are large."""


@dataclass(frozen=True)
class Chunk:
    """Frames at the tower's size, in frame slot ``slot``; inline where they are larger than a slot.

    Inline frames hold a slot's number too: the number is what limits how many are on their way.
    """

    slot: int
    shape: tuple[int, int, int, int]
    times: npt.NDArray[np.float64]
    indices: npt.NDArray[np.int64]
    inline: bytes = b""


@dataclass(frozen=True)
class Found:
    """A step of a probe is done."""

    step: str
    facts: dict[str, Any]
    work_seconds: float = 0.0
    """What the next step may take beside the time that every file has."""


@dataclass(frozen=True)
class Finished:
    source_hash: str
    source_bytes: int
    source_modified_ns: int
    bad_packets: int
    corrupt_frames: int
    planned_frames: int
    """Frames that the sampling takes of the file as it was when it was whole, as far as that can be told."""
    decoded_frames: int
    """Those that were decoded as planned, and not flagged as damaged."""
    doubtful_frames: int
    """Those of the decoded that may be predicted from what was lost."""
    warnings: tuple[str, ...] = ()
    log_tail: str = ""

    @property
    def damaged(self) -> bool:
        """Whether a planned frame is missing or doubtful."""
        return self.decoded_frames - self.doubtful_frames < self.planned_frames


@dataclass(frozen=True)
class Failed:
    stage: Stage
    error_class: str
    message: str
    log_tail: str = ""
    retry: bool = False
    """True when the process died, which may be the fault of what it did before: the file may work in a fresh one."""

    def naming(self, original: str, copy: str | None) -> Failed:
        """The same, said of the object of which a decoder saw a copy."""
        if copy is None:
            return self
        message, log_tail = (text.replace(copy, original) for text in (self.message, self.log_tail))
        return replace(self, message=message, log_tail=log_tail)


Message = Ready | Opened | Chunk | Found | Finished | Failed
