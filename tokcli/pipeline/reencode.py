"""Encoding a sample of a cache's items again from their sources: is what is stored what would come out today?"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tokcli.cache import Cache, open_cache
from tokcli.cache.codebook import KEY
from tokcli.errors import CacheConflictError, MediaError
from tokcli.media import hash_file
from tokcli.pipeline.compress import compress
from tokcli.pipeline.progress import Observer
from tokcli.pipeline.recorded import recorded_recipe
from tokcli.storage import is_url
from tokcli.types import EncodedItem, TokenSet

Outcome = Literal["equal", "close", "different", "changed", "gone"]

TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}
"""Where other versions or another machine made the cache: how far the tokens may be from those of today, as the norm of
the difference over the norm. Rounding in the tower's own type moves them by about as much."""
TOLERANCE_OF_CODES = 0.1
"""The same of tokens that are stored as codes of a byte or less."""
SAME_ROWS = 0.98
"""Share of the kept rows that must be the same then: near ties, a method may choose otherwise."""


@dataclass(frozen=True)
class Checked:
    """One item of the sample."""

    id: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True)
class DeepReport:
    """What encoding again told."""

    exact: bool
    """Whether the items must be equal bit for bit; else ``tolerance`` holds."""
    tolerance: float
    reasons: tuple[str, ...]
    """Why they need not be equal: what differs between the cache's making and now."""
    items: tuple[Checked, ...]

    @property
    def wrong(self) -> list[Checked]:
        """Items that are not what their sources give."""
        right = ("equal", "changed", "gone") if self.exact else ("equal", "close", "changed", "gone")
        return [item for item in self.items if item.outcome not in right]


def verify_deep(
    path: str | Path, *, sample: int = 8, seed: int = 0, device: str = "auto", observer: Observer | None = None
) -> DeepReport:
    """Encode ``sample`` random items again, with the cache's own model, sampling and method, and compare.

    Tokens, DeepStack levels, coordinates, sources, assignments, masses, times and frame numbers must be equal bit for
    bit where the libraries and the machine are those that made the cache, else within the tolerance. Sources that are
    gone, or hold something else now, are named and are no failure of the cache.

    Raises ``UsageError`` where nothing can be encoded again, ``CacheConflictError`` where the model of that name is
    another one now, ``ModelError``, ``MethodError``.
    """
    cache = open_cache(path)
    ids = random.Random(seed).sample(cache.ids(), min(sample, len(cache)))
    columns = ("id", "path", "source_blake3")
    rows = {row["id"]: row for row in cache.table(columns=columns).to_pylist()}
    found: dict[str, Checked] = {}
    sources: dict[str, str] = {}
    for item_id in ids:
        lost = _source_problem(rows[item_id])
        if lost is None:
            sources[item_id] = _from_anywhere(rows[item_id]["path"])
        else:
            found[item_id] = lost
    reasons: tuple[str, ...] = ()
    if sources:
        with tempfile.TemporaryDirectory(prefix="tokcli-verify-") as folder:
            made = _encode(cache, sources, Path(folder), device, observer)
            reasons = tuple(_differences(cache.manifest.information, made.manifest.information))
            for item_id in sources:
                found[item_id] = _checked(cache, made, item_id, not reasons)
    dtype = str(cache.manifest.configuration["tokens_dtype"])
    tolerance = TOLERANCES.get(dtype, TOLERANCE_OF_CODES)
    return DeepReport(not reasons, tolerance, reasons, tuple(found[item_id] for item_id in ids))


def _from_anywhere(path: str) -> str:
    return path if is_url(path) else str(Path(path).absolute())


def _source_problem(row: Mapping[str, Any]) -> Checked | None:
    """Why an item's source is not what it was made of; None where it is."""
    try:
        digest = hash_file(row["path"])
    except (OSError, MediaError, ValueError):
        return Checked(row["id"], "gone", f"{row['path']} cannot be read")
    if digest != row["source_blake3"]:
        return Checked(row["id"], "changed", f"{row['path']} holds something else now")
    return None


def _encode(cache: Cache, sources: Mapping[str, str], folder: Path, device: str, observer: Observer | None) -> Cache:
    """A cache of these files, made as the other one was."""
    listing = folder / "inputs.jsonl"
    listing.write_text("".join(json.dumps({"id": key, "path": path}) + "\n" for key, path in sources.items()))
    recipe = recorded_recipe(cache.manifest, folder / "cache", [str(listing)])
    own = str(cache.path) if KEY in cache.manifest.configuration else None
    changes: dict[str, Any] = {"path_col": "path", "id_col": "id", "columns": [], "device": device, "codebook": own}
    recipe = recipe.model_copy(update=changes)
    compress(recipe, observer)
    made = open_cache(folder / "cache")
    if found := cache.manifest.differing(made.manifest):
        listing_of = "\n".join(f"  {key}: {old} in the cache, {new} here" for key, old, new in found)
        raise CacheConflictError(f"{cache.path} cannot be made again here:\n{listing_of}")
    return made


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What may move the last bits: other libraries, another machine, or a cache that does not tell."""
    found = []
    for kind in ("versions", "machine"):
        old, new = then.get(kind), now.get(kind, {})
        if old is None:
            found.append(f"the cache does not tell its {kind}")
            continue
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                found.append(f"{name} was {old.get(name)}, is {new.get(name)}")
    return found


def _checked(cache: Cache, made: Cache, item_id: str, exact: bool) -> Checked:
    if item_id not in made:
        row = next(row for row in made.errors().to_pylist() if row["id"] == item_id)
        return Checked(item_id, "different", f"fails now: {row['message']}")
    return compare(cache[item_id], made[item_id], str(cache.manifest.configuration["tokens_dtype"]), exact=exact)


def compare(stored: EncodedItem, made: EncodedItem, dtype: str, *, exact: bool) -> Checked:
    """How far an item is from what its source gives now; ``dtype`` is what its tokens are stored as."""
    frames = np.array_equal(stored.times, made.times) and np.array_equal(stored.indices, made.indices)
    if not frames or stored.views != made.views or stored.source_tokens != made.source_tokens:
        return Checked(stored.id, "different", "other frames, or grids of tokens, than were stored")
    differing = [name for name in _TENSORS if not _same(getattr(stored.kept, name), getattr(made.kept, name))]
    if not differing:
        return Checked(stored.id, "equal")
    shared, distance = _distance(stored.kept, made.kept)
    detail = f"{shared:.1%} of the rows are the same, tokens of these differ by {distance:.1e} of their norm"
    tolerance = TOLERANCES.get(dtype, TOLERANCE_OF_CODES)
    near = shared >= SAME_ROWS and distance <= tolerance
    if exact and near:
        detail += ", which would do between versions, but these are the same"
    return Checked(stored.id, "close" if near else "different", f"other {', '.join(differing)}: {detail}")


_TENSORS = ("tokens", "deepstack", "coords", "source", "assignment", "mass")


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(torch.equal(one.contiguous().view(torch.uint8), other.contiguous().view(torch.uint8)))


def _distance(stored: TokenSet, made: TokenSet) -> tuple[float, float]:
    """Share of the rows that both keep, and how far their tokens and masses are apart."""
    both, one, other = np.intersect1d(stored.source.numpy(), made.source.numpy(), return_indices=True)
    shared = len(both) / max(1, len(stored), len(made))
    distances = [
        _relative(getattr(stored, name)[one], getattr(made, name)[other])
        for name in ("tokens", "deepstack", "mass")
        if getattr(stored, name) is not None and getattr(made, name) is not None
    ]
    return (shared if len(stored) or len(made) else 1.0), max(distances)


def _relative(one: torch.Tensor, other: torch.Tensor) -> float:
    one, other = one.float(), other.float()
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).norm() / one.norm().clamp_min(1e-12))
