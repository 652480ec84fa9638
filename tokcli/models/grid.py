"""What families share whose tower takes patches with a grid, and whose language model takes M-RoPE positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tokcli.models.base import CHATML, SCHEMES, TOWER_SIGNALS, PlainAdapter, kept_tokens, only_view

if TYPE_CHECKING:
    import torch

    from tokcli.models.positions import Block, Text
    from tokcli.models.settings import Preprocessing, Settings
    from tokcli.types import EncodedItem, MediaKind


class GridAdapter(PlainAdapter):
    """Base of the families; patches have a (t, h, w) grid.

    Temporal steps do not see one another in these towers, so a clip may be encoded in any runs of steps.
    """

    vision_modules = ("visual",)
    language_modules = ("language_model",)
    vision_prefixes = ("visual.", "model.visual.")
    default_template = CHATML
    part_types: ClassVar[Mapping[MediaKind, str]] = {"image": "image", "video": "video"}
    system_as_parts = False
    position_schemes = SCHEMES
    signals = frozenset({"pixel_change", *TOWER_SIGNALS})

    def preprocessing(self, folder: Path, config: Any) -> Preprocessing:
        from tokcli.models.settings import check_patches, read_preprocessing

        preprocessing = read_preprocessing(folder)
        check_patches(folder, config.vision_config, preprocessing)
        return preprocessing

    def encode(
        self, model: Any, pixels: torch.Tensor, settings: Settings, wanted: frozenset[str]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        import torch

        from tokcli.models.preprocess import to_patches
        from tokcli.models.signals import grid_signals, overhear

        patch = settings.patch_size
        grid = [len(pixels) // settings.temporal_patch_size, pixels.shape[1] // patch, pixels.shape[2] // patch]
        asked = wanted & TOWER_SIGNALS
        attention: Any = model.model.visual.blocks[self.signal_block(model.config)].attn if asked else None
        with overhear(*([attention] if asked else [])) as calls:
            output = model.model.get_video_features(
                to_patches(pixels, settings), torch.tensor([grid], device=pixels.device), return_dict=True
            )
        tokens = torch.cat(list(output.pooler_output))
        levels = [torch.cat(list(level)) for level in getattr(output, "deepstack_features", None) or ()]
        unasked = {"deepstack": torch.stack(levels, dim=1)} if levels else {}
        if not asked:
            return tokens, unasked
        merge = settings.merge_size
        signals = grid_signals(
            asked,
            attention,
            calls[attention],
            output.last_hidden_state,
            steps=grid[0],
            unit=merge * merge,
            order=self.tower_order(model.config, grid[1] // merge, grid[2] // merge),
        )
        return tokens, signals | unasked

    def signal_block(self, config: Any) -> int:
        """Index of the block whose attention makes the signals: the last one that attends to whole frames."""
        return -1

    def tower_order(self, config: Any, rows: int, columns: int) -> torch.Tensor | None:
        """int64 (rows * columns,): the order in which the tower has a frame's tokens; None for rows, then columns."""
        return None

    def expand(self, item: EncodedItem, config: Any, tokenizer: Any) -> Sequence[Block | Sequence[int]]:
        from tokcli.models.positions import Block

        return [Block(only_view(item).grid, self.interval(item, config))]

    def interval(self, item: EncodedItem, config: Any) -> float:
        """Positions between two temporal steps of ``item``."""
        return 1.0

    def positions(self, parts: Sequence[Text | Block], kept: torch.Tensor, scheme: str) -> torch.Tensor:
        from tokcli.models.positions import kept_positions

        return kept_positions(parts, kept, scheme)

    def encoder_outputs(self, items: Sequence[EncodedItem], like: torch.Tensor) -> dict[str, Any]:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        outputs: dict[str, Any] = {}
        for item in items:
            output = outputs.setdefault(item.kind, BaseModelOutputWithPooling(pooler_output=[]))
            output.pooler_output.append(kept_tokens(item, like))
        return outputs
