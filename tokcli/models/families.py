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
            "qwen3_vl",
            "Qwen3-VL",
            "tokcli.models.qwen3_vl:Qwen3VL",
            tuple(f"Qwen/Qwen3-VL-{size}-Instruct" for size in ("2B", "4B", "8B", "32B")),
        ),
        Family(
            "qwen3_vl_moe",
            "Qwen3-VL, mixture of experts",
            "tokcli.models.qwen3_vl:Qwen3VLMoe",
            tuple(f"Qwen/Qwen3-VL-{size}-Instruct" for size in ("30B-A3B", "235B-A22B")),
        ),
        Family(
            "qwen3_5",
            "Qwen3.5",
            "tokcli.models.qwen3_5:Qwen35",
            tuple(f"Qwen/Qwen3.5-{size}" for size in ("0.8B", "2B", "9B", "27B")),
        ),
        Family(
            "qwen3_5_moe",
            "Qwen3.5, mixture of experts",
            "tokcli.models.qwen3_5:Qwen35Moe",
            ("Qwen/Qwen3.5-35B-A3B",),
        ),
        Family(
            "glm4v",
            "GLM-4.1V",
            "tokcli.models.glm4v:Glm4V",
            ("zai-org/GLM-4.1V-9B-Thinking",),
        ),
        Family("glm4v_moe", "GLM-4.5V, mixture of experts", "tokcli.models.glm4v:Glm4VMoe", ("zai-org/GLM-4.5V",)),
        Family("glm46v", "GLM-4.6V", "tokcli.models.glm4v:Glm46V", ("zai-org/GLM-4.6V-Flash",)),
        Family(
            "llava",
            "LLaVA-1.5",
            "tokcli.models.llava:Llava",
            tuple(f"llava-hf/llava-1.5-{size}-hf" for size in ("7b", "13b")),
        ),
        Family(
            "llava_next",
            "LLaVA-NeXT (1.6)",
            "tokcli.models.llava_next:LlavaNext",
            tuple(
                f"llava-hf/{name}-hf" for name in ("llava-v1.6-mistral-7b", "llava-v1.6-vicuna-7b", "llava-v1.6-34b")
            ),
        ),
        Family(
            "llava_next_video",
            "LLaVA-NeXT-Video",
            "tokcli.models.llava_next:LlavaNextVideo",
            tuple(f"llava-hf/LLaVA-NeXT-Video-{size}-hf" for size in ("7B", "7B-DPO", "34B")),
        ),
        Family(
            "llava_onevision",
            "LLaVA-OneVision",
            "tokcli.models.llava_onevision:LlavaOnevision",
            tuple(f"llava-hf/llava-onevision-qwen2-{size}-ov-hf" for size in ("0.5b", "7b", "72b")),
        ),
        Family(
            "internvl",
            "InternVL3",
            "tokcli.models.internvl:InternVL",
            tuple(f"OpenGVLab/InternVL3-{size}-hf" for size in ("1B", "2B", "8B", "14B", "38B", "78B")),
        ),
        Family(
            "smolvlm",
            "SmolVLM2",
            "tokcli.models.idefics3:SmolVLM",
            (
                *(f"HuggingFaceTB/SmolVLM2-{size}-Video-Instruct" for size in ("256M", "500M")),
                "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
            ),
        ),
        Family("idefics3", "Idefics3", "tokcli.models.idefics3:Idefics3", ("HuggingFaceM4/Idefics3-8B-Llama3",)),
        Family(
            "gemma3",
            "Gemma 3",
            "tokcli.models.gemma3:Gemma3",
            tuple(f"google/gemma-3-{size}-it" for size in ("4b", "12b", "27b")),
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
