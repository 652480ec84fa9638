"""What the driver of a run on Ray and its actors say to each other: small and picklable, no frames and no tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tokcli.cache import Manifest
from tokcli.cache.codebook import Codebook
from tokcli.recipe import CompressRecipe
from tokcli.types import MediaItem


@dataclass(frozen=True)
class Setup:
    """The same for all actors of a run."""

    recipe: CompressRecipe
    folder: str
    """The driver's working folder: relative paths start there on every node."""
    version: str
    """Of tokcli."""
    decoders: int
    """Processes that decode, in each actor."""
    cores: int
    """Cores that an actor may keep busy."""


@dataclass(frozen=True)
class Place:
    """Where an actor runs."""

    node: str
    """Ray's id of the node."""
    host: str
    pid: int


@dataclass(frozen=True)
class Loaded:
    """An actor has its tower, and says what it would make."""

    manifests: tuple[Manifest, ...]
    """One for each cache of the recipe, its output first."""
    codebooks: tuple[Codebook | None, ...]


@dataclass(frozen=True)
class Order:
    """An item to be made."""

    item: MediaItem
    due: tuple[int, ...]
    """Numbers of the caches that miss it."""


@dataclass(frozen=True)
class Outcome:
    """An item that is done with; whether it is committed stands elsewhere."""

    item_id: str
    done: tuple[int, ...]
    """Numbers of the caches that have got it."""
    failed: tuple[int, ...]
    """Numbers of the caches that have got its error."""
    source_bytes: int = 0
    media_seconds: float = 0.0
    source_tokens: int = 0
    kept_tokens: int = 0


@dataclass(frozen=True)
class Remark:
    """Something that is to be shown; failures stand in the errors table besides."""

    kind: Literal["failure", "warning"]
    item_id: str
    stage: str
    message: str


@dataclass(frozen=True)
class Report:
    """What happened in an actor since its last report."""

    finished: tuple[Outcome, ...] = ()
    committed: tuple[str, ...] = ()
    """Ids of items that are in the caches for good, finished in this report or an earlier one."""
    remarks: tuple[Remark, ...] = ()
    current: tuple[str, ...] = ()
    """Ids of the items that are being decoded."""
    error: Exception | None = None
    """Why the run has to end."""
