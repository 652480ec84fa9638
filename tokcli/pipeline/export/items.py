"""Items as every format has them: a name that is safe anywhere, plain tensors, facts as JSON."""

from __future__ import annotations

import math
import re
from typing import Any

import torch

from tokcli.errors import UsageError
from tokcli.types import EncodedItem

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
NAME_LENGTH = 60
FLOAT16_LARGEST = 65504.0


def safe_name(number: int, item_id: str) -> str:
    """A name without dots, spaces or slashes, unique by its number also where upper and lower case are the same."""
    readable = _UNSAFE.sub("_", item_id.rsplit("/", 1)[-1]).strip("_")[:NAME_LENGTH]
    return f"{number:06d}-{readable}" if readable else f"{number:06d}"


def as_dtype(values: torch.Tensor, name: str, item_id: str) -> torch.Tensor:
    """``values`` as "float16", "bfloat16" or "float32"; "auto" leaves them.

    Raises:
        UsageError: Finite values would become infinite in float16.
    """
    if name == "auto" or values.dtype == getattr(torch, name):
        return values
    if name == "float16" and values.numel():
        most = float(values.abs().max())
        # Up to 65520 rounds to the largest number there is.
        if math.isfinite(most) and most >= 65520.0:
            raise UsageError(
                f"tokens of {item_id} reach {most:g}, float16 ends at {FLOAT16_LARGEST:g}; "
                "export them with --tokens-dtype bfloat16 or float32"
            )
    return values.to(getattr(torch, name))


def tensors_of(item: EncodedItem, dtype: str) -> dict[str, torch.Tensor]:
    """All tensors of an item by name, in rows of the token list.

    ``tokens`` (K, D) and, where the model takes such levels, ``deepstack`` (K, L, D), in ``dtype``; ``coords`` int32
    (K, 4): view, t, y, x; ``mass`` float32 (K,); ``source`` int64 (K,); ``times`` float64 and ``indices`` int64 (T,);
    ``assignment`` int32 (N,) where tokens were merged.
    """
    kept = item.kept
    tensors = {
        "tokens": as_dtype(kept.tokens, dtype, item.id),
        "coords": kept.coords,
        "mass": kept.mass,
        "source": kept.source,
        "times": torch.from_numpy(item.times),
        "indices": torch.from_numpy(item.indices),
    }
    if kept.deepstack is not None:
        tensors["deepstack"] = as_dtype(kept.deepstack, dtype, item.id)
    if kept.assignment is not None:
        tensors["assignment"] = kept.assignment
    # Levels and tokens of a cache may be views of the same memory.
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


FACTS = (
    "id",
    "path",
    "kind",
    "source_tokens",
    "duration_seconds",
    "source_fps",
    "sample_fps",
    "seconds_per_step",
    "codec",
    "decoder",
    "source_bytes",
    "bad_packets",
    "corrupt_frames",
)


def facts_of_item(item: EncodedItem) -> dict[str, Any]:
    """What is known of an item beside its tensors, as JSON; ``grids`` are (T', H', W') of its views."""
    facts = {name: getattr(item, name) for name in FACTS}
    facts |= {
        "kept_tokens": len(item.kept),
        "source_blake3": item.source_hash,
        "frame_size": list(item.frame_size),
        "source_size": list(item.source_size),
        "views": [view.kind for view in item.views],
        "grids": [list(view.grid) for view in item.views],
        "metadata": dict(item.metadata),
    }
    return jsonable(facts)


def jsonable(value: Any) -> Any:
    """``value`` as JSON can hold it: numbers that are none become null, what JSON doesn't know becomes text."""
    if isinstance(value, dict):
        return {str(key): jsonable(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(child) for child in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
