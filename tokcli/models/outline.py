"""All that is known of a vision tower before its weights are read: enough to say whose tokens a cache has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tokcli.models.base import FamilyAdapter
from tokcli.models.checkpoints import canonical_name, resolve_checkpoint, revision_of
from tokcli.models.families import family_of
from tokcli.models.fingerprint import tower_fingerprint
from tokcli.models.loading import load_config
from tokcli.models.placement import dtype_name, pick_device, pick_dtype
from tokcli.models.settings import Preprocessing


@dataclass(frozen=True)
class TowerOutline:
    """A vision tower that is not loaded."""

    folder: Path
    family: FamilyAdapter
    preprocessing: Preprocessing
    dtype: torch.dtype
    device: torch.device
    """Where it is to compute, and in which precision."""
    identity: dict[str, Any]
    """JSON-able; what the cache stores to know later whose tokens these are."""


def outline_tower(name: str, *, dtype: str = "auto", device: str = "auto") -> TowerOutline:
    """What ``load_tower`` opens, with its arguments.

    Raises:
        ModelError: Unknown model or family, incomplete checkpoint, or a dtype or device that can't be used.
    """
    import transformers

    folder = resolve_checkpoint(name)
    family = family_of(folder)
    config = load_config(folder)
    preprocessing = family.preprocessing(folder, config)
    place = pick_device(device)
    precision = pick_dtype(dtype, config, place)
    levels = family.deepstack_levels(config)
    identity = {
        "model": canonical_name(name),
        "family": config.model_type,
        "revision": revision_of(folder),
        "fingerprint": tower_fingerprint(folder, family, config, preprocessing),
        "preprocessing": preprocessing.to_json(),
        "dtype": dtype_name(precision),
        "hidden_size": config.get_text_config().hidden_size,
        **({"deepstack_levels": levels} if levels else {}),
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    return TowerOutline(folder, family, preprocessing, precision, place, identity)
