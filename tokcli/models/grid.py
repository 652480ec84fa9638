"""What families share whose tower takes patches with a grid, and whose language model takes M-RoPE positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tokcli.models.base import (
    CHATML,
    PROJECTOR_SIGNALS,
    SCHEMES,
    SQUARE_SIGNALS,
    TOWER_SIGNALS,
    PlainAdapter,
    kept_tokens,
    only_view,
)

if TYPE_CHECKING:
    import torch

    from tokcli.models.positions import Block, Text
    from tokcli.models.settings import Preprocessing, Settings
    from tokcli.models.signals import Look, Source
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
    signals = SQUARE_SIGNALS | TOWER_SIGNALS | PROJECTOR_SIGNALS
    of_squares = True

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
        from tokcli.models.signals import listening

        patch, merge = settings.patch_size, settings.merge_size
        grid = [len(pixels) // settings.temporal_patch_size, pixels.shape[1] // patch, pixels.shape[2] // patch]
        lengths = [grid[1] * grid[2]] * grid[0]
        with listening(
            wanted & self.signals - SQUARE_SIGNALS, partial(self.source, model, lengths, merge * merge)
        ) as signals:
            output = model.model.get_video_features(
                to_patches(pixels, settings), torch.tensor([grid], device=pixels.device), return_dict=True
            )
        tokens = torch.cat(list(output.pooler_output))
        levels = [torch.cat(list(level)) for level in getattr(output, "deepstack_features", None) or ()]
        unasked = {"deepstack": torch.stack(levels, dim=1)} if levels else {}
        order = self.tower_order(model.config, grid[1] // merge, grid[2] // merge)
        if order is not None:
            place = torch.argsort(order).to(pixels.device)
            signals = {
                name: values.unflatten(0, (grid[0], -1))[:, place].flatten(0, 1) for name, values in signals.items()
            }
        return tokens, signals | unasked

    def source(self, model: Any, lengths: Sequence[int], unit: int) -> Source:
        """Where signals come from in a run of frames of ``lengths`` patches; rows in the tower's order."""
        from tokcli.models.signals import Source, neighbours, rotary_heads

        visual = model.model.visual
        layers = self.signal_blocks(model.config, len(visual.blocks))
        return Source(
            [block.attn for block in visual.blocks],
            layers[-1],
            layers,
            partial(rotary_heads, lengths),
            partial(neighbours, unit),
            {"pre_projector": self.patches(model, unit), "projector_sensitivity": self.sensitivity(model, unit)},
        )

    def signal_blocks(self, config: Any, depth: int) -> Sequence[int]:
        """Blocks of ``depth`` that attend to whole frames, ascending; the last one makes most signals."""
        return range(depth)

    def patches(self, model: Any, unit: int) -> tuple[Any, Look]:
        """What makes tokens of patches, and the means of each ``unit`` of those that it is called with."""
        from tokcli.models.signals import first_argument, neighbours

        return model.model.visual.merger, lambda call: neighbours(unit, first_argument(call).float())

    def tower_order(self, config: Any, rows: int, columns: int) -> torch.Tensor | None:
        """int64 (rows * columns,): the order in which the tower has a frame's tokens; None for rows, then columns."""
        return None

    def sensitivity(self, model: Any, unit: int) -> tuple[Any, Look]:
        """The same module, and how much each token moves when all of its patches do."""
        from tokcli.models.sensitivity import call_sensitivity, in_float32
        from tokcli.models.signals import first_argument

        merger = model.model.visual.merger

        def look(call: tuple[tuple[Any, ...], Mapping[str, Any]]) -> torch.Tensor:
            def split(given: torch.Tensor) -> torch.Tensor:
                return given.reshape(len(given) // unit, -1)

            def join(rows: torch.Tensor) -> torch.Tensor:
                return rows.reshape(len(rows) * unit, -1)

            return call_sensitivity(in_float32(merger), first_argument(call), split, join)

        return merger, look

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
