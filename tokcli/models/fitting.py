"""Whether caches, items and prompts fit a language model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokcli.errors import ModelError, OtherModelError
from tokcli.models.fingerprint import tower_fingerprint

if TYPE_CHECKING:
    from tokcli.models.base import FamilyAdapter
    from tokcli.models.language_model import LanguageModel
    from tokcli.types import EncodedItem


def check_tower(folder: Path, family: FamilyAdapter, config: Any, name: str, identity: Mapping[str, Any]) -> None:
    """Raise ``OtherModelError`` unless the tower of the checkpoint in ``folder`` is what ``identity`` describes.

    Args:
        name: What the checkpoint is called.
        identity: ``VisionTower.identity`` as a cache stored it.
    """
    own = tower_fingerprint(folder, family, config, family.preprocessing(folder, config))
    made, maker = str(identity.get("fingerprint")), identity.get("model")
    if own == made:
        return
    way = (
        "its weights or preprocessing have changed since: compress"
        if maker == name
        else f"use --model {maker} or compress"
    )
    raise OtherModelError(
        f"the cache was made by {maker} ({identity.get('family')}, tower {made[:12]}), this is "
        f"{name} ({config.model_type}, tower {own[:12]}); {way} again"
    )


def check_width(language: LanguageModel, items: Sequence[EncodedItem]) -> None:
    """Raise ``ModelError`` for an item whose tokens have another width than the model's."""
    width = language.model.get_input_embeddings().weight.shape[1]
    for item in items:
        if item.kept.tokens.shape[1] != width:
            raise ModelError(
                f"item {item.id!r} has tokens of width {item.kept.tokens.shape[1]}, {language.name} takes {width}; "
                "use the model that made the cache"
            )


def check_context(
    language: LanguageModel, items: Sequence[EncodedItem], prompt_tokens: int, max_new_tokens: int
) -> None:
    """Raise ``ModelError`` where the model's context is too short for a prompt about ``items`` and its answer."""
    limit = getattr(language.model.config.get_text_config(), "max_position_embeddings", None)
    if limit is None or prompt_tokens + max_new_tokens <= limit:
        return
    visual = sum(len(item.kept) for item in items)
    room = limit - max_new_tokens - (prompt_tokens - visual)
    share = math.floor(1000 * room / sum(item.source_tokens for item in items)) / 1000 if visual else 0.0
    way = f"read fewer of them: --keep {share:g}" if share > 0 else "shorten the prompt"
    raise ModelError(
        f"the prompt has {prompt_tokens} tokens, {visual} of them visual, and with {max_new_tokens} new ones that is "
        f"beyond the {limit} of {language.name}; {way}"
    )
