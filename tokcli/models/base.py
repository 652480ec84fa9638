"""What a model family's adapter offers: how its tower encodes, and how its language model takes the tokens back.

Both ends of a family are in one object, because the places that tokens get when they are encoded must be those that
they have when they are spliced into a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tokcli.errors import ModelError

if TYPE_CHECKING:
    import torch

    from tokcli.models.positions import Block
    from tokcli.models.settings import Settings
    from tokcli.types import EncodedItem, MediaKind

SCHEMES = ("original", "hf", "compact")
"""Position schemes, the default first; explained in :mod:`tokcli.models.positions`."""


class FamilyAdapter(Protocol):
    """One model family. Stateless."""

    model_class: ClassVar[str]
    """Name of the class in transformers that opens the family's checkpoints."""
    vision_modules: ClassVar[tuple[str, ...]]
    """Children of ``model.model`` that only encoding needs."""
    language_modules: ClassVar[tuple[str, ...]]
    """Children of ``model.model`` that only answering needs."""
    vision_prefixes: ClassVar[tuple[str, ...]]
    """How the names of the vision half's tensors begin in checkpoint files, over all layouts in use."""
    vision_settings: ClassVar[tuple[str, ...]]
    """Fields of ``vision_config`` that change what the tower computes."""
    position_schemes: ClassVar[tuple[str, ...]]
    signals: ClassVar[frozenset[str]]
    """Signals that encoding can add to the tokens."""

    def encode(self, model: Any, pixels: torch.Tensor, settings: Settings) -> torch.Tensor:
        """uint8 (n, h, w, 3), n a multiple of the temporal patch size, to tokens (N, D) in (t, y, x) order."""

    def placeholder(self, config: Any, kind: MediaKind) -> int:
        """Id of the token that stands for visual tokens of ``kind`` in a prompt."""

    def expand(self, item: EncodedItem, config: Any, tokenizer: Any) -> Sequence[Block | Sequence[int]]:
        """What replaces the item's single placeholder in the prompt: blocks of visual tokens, ids of text between."""

    def encoder_outputs(self, items: Sequence[EncodedItem], like: torch.Tensor) -> dict[str, Any]:
        """``mm_encoder_outputs`` for a batch: the kept tokens of its items in order, dtype and device as ``like``.

        A fresh object on every call: ``generate`` changes it.
        """


class GridAdapter:
    """Families whose tower takes patches with a (t, h, w) grid, and whose language model takes M-RoPE positions.

    Temporal steps do not see one another in these towers, so a clip may be encoded in any runs of steps.
    """

    vision_modules = ("visual",)
    language_modules = ("language_model",)
    vision_prefixes = ("visual.", "model.visual.")
    position_schemes = SCHEMES
    signals = frozenset({"pixel_change"})

    def encode(self, model: Any, pixels: torch.Tensor, settings: Settings) -> torch.Tensor:
        import torch

        from tokcli.models.preprocess import to_patches

        patch = settings.patch_size
        grid = [len(pixels) // settings.temporal_patch_size, pixels.shape[1] // patch, pixels.shape[2] // patch]
        patches = to_patches(pixels, settings)
        output = model.model.get_video_features(patches, torch.tensor([grid], device=pixels.device), return_dict=True)
        return torch.cat(list(output.pooler_output))

    def placeholder(self, config: Any, kind: MediaKind) -> int:
        return int(config.image_token_id if kind == "image" else config.video_token_id)

    def expand(self, item: EncodedItem, config: Any, tokenizer: Any) -> Sequence[Block | Sequence[int]]:
        from tokcli.models.positions import Block

        if len(item.views) != 1:
            raise ModelError(
                f"item {item.id!r} has {len(item.views)} views, this family has one; compress it again with this model"
            )
        return [Block(item.views[0].grid, self.interval(item, config))]

    def interval(self, item: EncodedItem, config: Any) -> float:
        """Positions between two temporal steps of ``item``."""
        return 1.0

    def encoder_outputs(self, items: Sequence[EncodedItem], like: torch.Tensor) -> dict[str, Any]:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        outputs: dict[str, Any] = {}
        for item in items:
            output = outputs.setdefault(item.kind, BaseModelOutputWithPooling(pooler_output=[]))
            output.pooler_output.append(item.kept.tokens.to(device=like.device, dtype=like.dtype))
        return outputs
