"""The model families that tokcli can drive. Plain data: reading the list loads no adapter and no torch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokcli.errors import ModelError
from tokcli.models.settings import read_json

if TYPE_CHECKING:
    from tokcli.models.base import FamilyAdapter


@dataclass(frozen=True)
class Family:
    """What is known of a family before its adapter is loaded."""

    model_type: str
    """As in the checkpoint's config.json."""
    title: str
    adapter: str
    """"module:class" of the adapter."""
    checkpoints: tuple[str, ...]
    """Published checkpoints, hub ids."""

    def load(self) -> FamilyAdapter:
        module, _, name = self.adapter.partition(":")
        return getattr(importlib.import_module(module), name)()


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            "qwen2_5_vl",
            "Qwen2.5-VL",
            "tokcli.models.qwen2_5_vl:Qwen25VL",
            tuple(f"Qwen/Qwen2.5-VL-{size}-Instruct" for size in ("3B", "7B", "32B", "72B")),
        ),
        Family(
            "qwen2_vl",
            "Qwen2-VL",
            "tokcli.models.qwen2_vl:Qwen2VL",
            tuple(f"Qwen/Qwen2-VL-{size}-Instruct" for size in ("2B", "7B", "72B")),
        ),
        Family(
            "llava",
            "LLaVA-1.5",
            "tokcli.models.llava:Llava",
            tuple(f"llava-hf/llava-1.5-{size}-hf" for size in ("7b", "13b")),
        ),
    )
}


@dataclass(frozen=True)
class Bundled:
    """A model that is part of the package."""

    folder: str
    """Beside this file; holds a folder ``checkpoint``."""
    family: str
    title: str


BUNDLED = {
    "nano": Bundled("nano", "qwen2_5_vl", "bundled demonstration model for rendered clips"),
    "nano-clip": Bundled("nano_clip", "llava", "its sibling with a CLIP tower: [CLS], positions in one dimension"),
}
"""By name; the first is the default model."""


def family_of(folder: Path) -> FamilyAdapter:
    """Adapter for the checkpoint in ``folder``.

    Raises:
        ModelError: Its family has no adapter.
    """
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type not in FAMILIES:
        raise ModelError(
            f"{folder} is of the family {model_type!r}, for which there is no adapter; supported: {', '.join(FAMILIES)}"
        )
    return FAMILIES[model_type].load()


def list_models() -> list[dict[str, Any]]:
    """The bundled models, then the supported families, as JSON-able rows with the same keys."""
    families: list[dict[str, Any]] = []
    for family in FAMILIES.values():
        adapter = family.load()
        families.append(
            {
                "name": family.model_type,
                "kind": "family",
                "title": family.title,
                "family": family.model_type,
                "checkpoints": list(family.checkpoints),
                "media": ["video", "image"],
                "position_schemes": list(adapter.position_schemes),
                "signals": sorted(adapter.signals),
            }
        )
    by_type = {row["family"]: row for row in families}
    bundled = [
        {**by_type[model.family], "name": name, "kind": "bundled", "title": model.title, "checkpoints": [name]}
        for name, model in BUNDLED.items()
    ]
    return [*bundled, *families]
