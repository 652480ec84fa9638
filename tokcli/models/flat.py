"""What families share whose language model takes positions in one dimension.

Positions number the tokens of the full prompt. A kept token keeps its number, and text goes on after the full block:
``original`` and ``hf`` are the same here, ``compact`` numbers what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tokcli.models.base import SCHEMES, PlainAdapter, kept_tokens

if TYPE_CHECKING:
    import torch

    from tokcli.models.positions import Block, Text
    from tokcli.types import EncodedItem


CLIP_SETTINGS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
)
"""Fields of ``vision_config`` that change what a tower like CLIP's or SigLIP's computes."""


class FlatAdapter(PlainAdapter):
    """Base of adapters with one run of positions."""

    language_modules = ("language_model",)
    system_as_parts = True
    position_schemes = SCHEMES
    signals: frozenset[str] = frozenset()
    vision_settings: ClassVar[tuple[str, ...]] = CLIP_SETTINGS

    def positions(self, parts: Sequence[Text | Block], kept: torch.Tensor, scheme: str) -> torch.Tensor:
        """int64 (K,)."""
        import torch

        from tokcli.models.positions import check_scheme

        check_scheme(scheme, self.position_schemes)
        return torch.arange(len(kept)) if scheme == "compact" else kept


def as_one_row(items: Sequence[EncodedItem], like: torch.Tensor) -> dict[str, Any]:
    """As ``as_stills``, for models that take a tensor: they flatten it, so one row of all tokens serves as well."""
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    if not items:
        return {}
    tokens = torch.cat([kept_tokens(item, like) for item in items])
    return {"image": BaseModelOutputWithPooling(pooler_output=tokens[None])}
