"""Prompts of a checkpoint without its weights: for those who have the language model somewhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tokcli.errors import ModelError
from tokcli.models.base import FamilyAdapter
from tokcli.models.checkpoints import canonical_name, resolve_checkpoint
from tokcli.models.families import family_of
from tokcli.models.fitting import check_tower
from tokcli.models.loading import load_config, load_half, load_tokenizer
from tokcli.models.prompt import Prompt, Request, build_prompt, read_ids, read_template, read_texts
from tokcli.types import EncodedItem, MediaKind


@dataclass(frozen=True)
class PromptLayout:
    """How one checkpoint lays out prompts. Made by :func:`load_prompt_layout`."""

    name: str
    folder: Path
    family: FamilyAdapter
    config: Any
    tokenizer: Any
    template: str

    def check(self, identity: Mapping[str, Any]) -> None:
        """Raise ``OtherModelError`` unless the checkpoint's own tower is the one that ``identity`` describes."""
        check_tower(self.folder, self.family, self.config, self.name, identity)

    @property
    def width(self) -> int:
        """D: of the language model's embeddings."""
        return int(self.config.get_text_config().hidden_size)

    @property
    def merge_size(self) -> int:
        """Patches along the side of a token, for families whose towers tell a grid of patches."""
        return int(self.config.vision_config.spatial_merge_size)

    def placeholder(self, kind: MediaKind) -> int:
        """Id of the token that stands for an item before it is expanded."""
        return self.family.placeholder(self.config, kind)

    def text(self, request: Request) -> str:
        """The prompt as text that the tokenizer turns into :meth:`ids`; each item is a single placeholder.

        Raises:
            ModelError: The chat template fails.
            UsageError: The prompt holds a placeholder.
        """
        (text,) = read_texts([request], **self._how())
        bos = self.tokenizer.bos_token
        # What the tokenizer puts at the beginning itself must not stand there twice.
        adds = bool(bos) and self.tokenizer("").input_ids[:1] == [self.tokenizer.bos_token_id]
        return text.removeprefix(bos) if adds else text

    def ids(self, request: Request) -> list[int]:
        """Ids of the prompt, each item being a single placeholder. Raises as :meth:`text` does."""
        (ids,) = read_ids([request], **self._how())
        return ids

    def prompt(self, request: Request, scheme: str) -> Prompt:
        """Ids and positions of the kept tokens. Raises as :meth:`text` does, and for items that don't fit."""
        return build_prompt(request, **self._how(), scheme=scheme)

    def tokens(self, item: EncodedItem, dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """An item's tokens (K, D) in the order in which they stand in a prompt, and its DeepStack levels, (K, D) each.

        Raises:
            ModelError: They have another width than the language model.
        """
        width = item.kept.tokens.shape[1]
        if width != self.width:
            raise ModelError(
                f"item {item.id!r} has tokens of width {width}, {self.name} takes {self.width}; "
                "use the model that made the cache"
            )
        (output,) = self.family.encoder_outputs([item], torch.empty(0, dtype=dtype)).values()
        rows = torch.cat([torch.as_tensor(part).reshape(-1, width) for part in output.pooler_output])
        return rows, [level[0] for level in getattr(output, "deepstack_features", None) or ()]

    def embeddings(self) -> torch.nn.Embedding:
        """The input embeddings of the language model, as the checkpoint stores them; loads its language half once.

        Raises:
            ModelError: A weight is missing, or the model does more to its embeddings than to look them up.
        """
        stored = getattr(self.config, "dtype", None) or getattr(self.config.get_text_config(), "dtype", None)
        model = load_half(
            self.folder, self.family, "language", dtype=stored or torch.float32, device=torch.device("cpu")
        )
        table = model.get_input_embeddings()
        if type(table) is not torch.nn.Embedding:
            raise ModelError(
                f"{self.name} changes embeddings after looking them up ({type(table).__name__}), so what an engine "
                "would do with them isn't known; ask the cache with `tokcli infer`"
            )
        return table

    def _how(self) -> dict[str, Any]:
        return {
            "family": self.family,
            "config": self.config,
            "tokenizer": self.tokenizer,
            "template": self.template,
        }


def load_prompt_layout(name: str) -> PromptLayout:
    """Read configuration, tokenizer and chat template of a checkpoint; no weights.

    Args:
        name: "nano", a checkpoint folder, or a hub id.

    Raises:
        ModelError: Unknown model or family, or an incomplete checkpoint.
    """
    folder = resolve_checkpoint(name)
    family, tokenizer = family_of(folder), load_tokenizer(folder)
    template = read_template(folder, tokenizer, family.default_template)
    return PromptLayout(canonical_name(name), folder, family, load_config(folder), tokenizer, template)
