"""Stills of any resolution in LLaVA's way: the whole as a thumbnail, then a canvas of tiles without its padding.

Each row of the canvas ends with a newline, a learned vector, which is structural: no method scores or drops it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tokcli.errors import ModelError
from tokcli.models.base import Part, kept_tokens
from tokcli.models.flat import CLIP_SETTINGS
from tokcli.models.pictures import PictureAdapter
from tokcli.types import View

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from tokcli.models.positions import Block
    from tokcli.models.settings import Preprocessing, Settings
    from tokcli.models.sizing import FixedGrid
    from tokcli.types import EncodedItem, MediaKind


class AnyresAdapter(PictureAdapter):
    """Base of the families; each has its own way with video."""

    takes_all_rows = "its stills are put together from tiles with all their rows, and frames are pooled over neighbours"

    stored = "tiles, overview and newlines of a still, frames of a video, with their grids"

    vision_modules: tuple[str, ...] = ("vision_tower", "multi_modal_projector")
    vision_prefixes = tuple(
        start + name
        for start in ("", "model.")
        for name in ("vision_tower.vision_model.", "vision_tower.", "multi_modal_projector.", "image_newline")
    )
    part_types: ClassVar[Mapping[MediaKind, str]] = {"image": "image", "video": "video"}
    vision_settings: ClassVar[tuple[str, ...]] = ("model_type", *CLIP_SETTINGS)
    feature_settings: ClassVar[tuple[str, ...]] = (
        "vision_feature_layer",
        "vision_feature_select_strategy",
        "projector_hidden_act",
        "multimodal_projector_bias",
        "image_grid_pinpoints",
    )

    def preprocessing(self, folder: Path, config: Any) -> Preprocessing:
        from tokcli.models.settings import Preprocessing, pixel_settings, read_processors
        from tokcli.models.tiles import AnyresTiling

        self.check_features(folder, config)
        image, video = read_processors(folder)
        side = int(config.vision_config.image_size)
        pinpoints = [list(pair) for pair in image.get("image_grid_pinpoints") or config.image_grid_pinpoints]
        if pinpoints != [list(pair) for pair in config.image_grid_pinpoints]:
            raise ModelError(
                f"{folder}: the image processor and config.json name different image_grid_pinpoints; correct "
                "preprocessor_config.json"
            )
        if any(height % side or width % side for height, width in pinpoints):
            raise ModelError(
                f"{folder}: image_grid_pinpoints must be multiples of the {side} pixels that the tower takes; correct "
                "the configuration files"
            )
        tiling = AnyresTiling(side, tuple((int(height), int(width)) for height, width in pinpoints))

        def geometry(given: Mapping[str, Any], bounds: AnyresTiling | FixedGrid) -> Mapping[str, Any]:
            check_side(folder, given, side)
            return {
                "bounds": bounds,
                "patch_size": int(config.vision_config.patch_size),
                "merge_size": 1,
                "temporal_patch_size": 1,
            }

        return Preprocessing(
            pixel_settings(folder, "image", image, lambda given: geometry(given, tiling)),
            pixel_settings(folder, "video", video, lambda given: geometry(given, self.frame_grid(config))),
        )

    def check_features(self, folder: Path, config: Any) -> None:
        """Raise ``ModelError`` for choices of features that tokcli doesn't make."""
        if not isinstance(config.vision_feature_layer, int):
            raise ModelError(f"{folder}: vision_feature_layer must be one layer, got {config.vision_feature_layer}")

    def frame_grid(self, config: Any) -> FixedGrid:
        """Size and tokens of a frame of video."""
        raise NotImplementedError

    def canvas_grid(self, config: Any, rows: int, columns: int) -> tuple[int, int]:
        """What is left of the canvas's rows and columns of tokens."""
        return rows, columns

    def pack(self, model: Any, features: torch.Tensor, size: torch.Tensor, newline: torch.Tensor) -> torch.Tensor:
        """Rows (N, C) of a still from those of its tiles, (tiles, n, C).

        Args:
            size: That of the still, int64 (1, 2).
            newline: (C,), what stands behind each row of the canvas.
        """
        raise NotImplementedError

    def has_cls(self, config: Any) -> bool:
        return bool(config.vision_feature_select_strategy == "default")

    def features(self, model: Any, planes: torch.Tensor) -> torch.Tensor:
        """Projected tokens (n, side * side, D) of planes (n, 3, h, w)."""
        states = model.model.vision_tower(planes, output_hidden_states=True, return_dict=True).hidden_states
        selected = states[model.config.vision_feature_layer]
        if self.has_cls(model.config):
            selected = selected[:, 1:]
        projected: torch.Tensor = model.model.multi_modal_projector(selected)
        return projected

    def still_parts(self, config: Any, settings: Settings, height: int, width: int) -> tuple[Part, ...]:
        from tokcli.models.tiles import AnyresTiling

        assert isinstance(settings.bounds, AnyresTiling)
        side = tile_tokens(config)
        rows, columns = self.canvas_grid(config, *settings.bounds.unpadded(height, width, side))
        return (
            Part(View("thumbnail", (1, side, side)), separated=False),
            Part(View("crop", (1, rows, columns)), separated=True),
        )

    def cut(self, pixels: npt.NDArray[np.uint8], settings: Settings) -> npt.NDArray[np.uint8]:
        from tokcli.models.cutting import anyres_tiles
        from tokcli.models.tiles import AnyresTiling

        assert isinstance(settings.bounds, AnyresTiling)
        return anyres_tiles(pixels, settings.bounds, settings.resample)

    def stitch(
        self,
        model: Any,
        settings: Settings,
        size: tuple[int, int],
        values: torch.Tensor,
        separator: torch.Tensor | None,
    ) -> torch.Tensor:
        import torch

        newline = model.model.image_newline if separator is None else separator
        return self.pack(model, values, torch.tensor([size]), newline)

    def expand(self, item: EncodedItem, config: Any, tokenizer: Any) -> Sequence[Block | Sequence[int]]:
        from tokcli.models.positions import Block

        if item.kind == "video":
            return [Block(item.views[0].grid), *([Block((1, 1, 1))] if self.closes else [])]
        return [Block((1, 1, Part(view, separated=view.kind == "crop").length)) for view in item.views]

    closes: ClassVar[bool] = False
    """Whether a separator follows the last frame of a video."""

    def closing(self, model: Any) -> torch.Tensor | None:
        return model.model.image_newline if self.closes else None

    def encoder_outputs(self, items: Sequence[EncodedItem], like: torch.Tensor) -> dict[str, Any]:
        import torch
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        outputs: dict[str, Any] = {}
        stills, videos = (
            [kept_tokens(item, like) for item in items if item.kind == kind] for kind in ("image", "video")
        )
        if stills:
            outputs["image"] = BaseModelOutputWithPooling(pooler_output=stills)
        if videos:
            # The models flatten what they have of videos: one row of all tokens serves as well.
            outputs["video"] = BaseModelOutputWithPooling(pooler_output=torch.cat(videos)[None])
        return outputs


def tile_tokens(config: Any) -> int:
    """Tokens along the side of a tile."""
    return int(config.vision_config.image_size) // int(config.vision_config.patch_size)


def check_side(folder: Path, processor: Mapping[str, Any], side: int) -> None:
    """Raise ``ModelError`` unless the processor makes squares of ``side`` pixels."""
    size = processor.get("size") or {"height": side, "width": side}
    sides = {size} if isinstance(size, int) else {int(value) for value in size.values()}
    if sides != {side}:
        raise ModelError(
            f"{folder}: the processor makes tiles of {'x'.join(map(str, sorted(sides)))} pixels, the tower takes "
            f"{side}x{side}; correct the preprocessor configuration files"
        )
