"""InternVL (arXiv:2404.16821, 2504.10479), as converted for transformers: tiles of a still, frames of a video.

Stills are stretched to a canvas of tiles and cut; if there are several, the whole still follows as one more. Every tile
is a view. A frame of a video is a tile, behind "Frame1: " and its like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tokcli.errors import ModelError
from tokcli.models.anyres import check_side
from tokcli.models.base import CHATML_WITHOUT_SYSTEM, CLS_SIGNALS, ONE_SIZE, Part
from tokcli.models.flat import CLIP_SETTINGS, as_one_row
from tokcli.models.pictures import PictureAdapter
from tokcli.types import View, ViewKind

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from tokcli.models.positions import Block
    from tokcli.models.settings import Preprocessing, Settings
    from tokcli.models.signals import Look
    from tokcli.models.sizing import FixedGrid
    from tokcli.models.tiles import CanvasTiling
    from tokcli.types import EncodedItem, MediaKind


class InternVL(PictureAdapter):
    """Adapter for checkpoints of the type ``internvl``."""

    model_class = "InternVLForConditionalGeneration"
    stored = "tiles and overview of a still, frames of a video, with their grids"
    limits = (ONE_SIZE,)
    signals = PictureAdapter.signals | CLS_SIGNALS
    feature_settings = (
        "downsample_ratio",
        "projector_hidden_act",
        "vision_feature_layer",
        "vision_feature_select_strategy",
    )
    vision_settings = (
        *CLIP_SETTINGS,
        "attention_bias",
        "use_qk_norm",
        "norm_type",
        "layer_scale_init_value",
        "use_mask_token",
        "use_absolute_position_embeddings",
        "use_mean_pooling",
    )
    vision_modules = ("vision_tower", "multi_modal_projector")
    vision_prefixes = tuple(
        start + name for start in ("", "model.") for name in ("vision_tower.", "multi_modal_projector.")
    )
    default_template = CHATML_WITHOUT_SYSTEM.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>\n")
    part_types: ClassVar[Mapping[MediaKind, str]] = {"image": "image", "video": "image"}

    def preprocessing(self, folder: Path, config: Any) -> Preprocessing:
        from tokcli.models.settings import Preprocessing, pixel_settings, read_processors
        from tokcli.models.sizing import FixedGrid
        from tokcli.models.tiles import CanvasTiling

        if not isinstance(config.vision_feature_layer, int):
            raise ModelError(f"{folder}: vision_feature_layer must be one layer, got {config.vision_feature_layer}")
        image, video = read_processors(folder)
        side, patch = (int(sides[0]) for sides in (config.vision_config.image_size, config.vision_config.patch_size))
        tokens = _tile_tokens(config)

        def geometry(given: Mapping[str, Any], bounds: CanvasTiling | FixedGrid) -> Mapping[str, Any]:
            check_side(folder, given, side)
            return {"bounds": bounds, "patch_size": patch, "merge_size": 1, "temporal_patch_size": 1}

        # The processor of this family cuts tiles whatever ``crop_to_patches`` says in the file.
        tiling = CanvasTiling(side, int(image.get("min_patches", 1)), int(image.get("max_patches", 12)))
        grid = FixedGrid(side, side, tokens, tokens)
        return Preprocessing(
            pixel_settings(folder, "image", image, lambda given: geometry(given, tiling)),
            pixel_settings(folder, "video", video, lambda given: geometry(given, grid)),
        )

    def features(self, model: Any, planes: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = model.model.get_image_features(planes, return_dict=True).pooler_output
        return features

    def picture_size(self, model: Any) -> int:
        return int(model.config.vision_config.image_size[0])

    def token_side(self, config: Any) -> int:
        return int(1 / config.downsample_ratio)

    def has_cls(self, config: Any) -> bool:
        return bool(config.vision_feature_select_strategy == "default")

    def attentions(self, model: Any) -> Sequence[Any]:
        return [block.attention for block in model.model.vision_tower.encoder.layer]

    def before_projector(self, model: Any) -> Look:
        """The projector is given the patches of a token one behind the other."""
        from tokcli.models.signals import first_argument

        patches = self.token_side(model.config) ** 2
        return lambda call: first_argument(call).float().flatten(0, 1).unflatten(-1, (patches, -1)).mean(dim=1)

    def still_parts(self, config: Any, settings: Settings, height: int, width: int) -> tuple[Part, ...]:
        from tokcli.models.tiles import CanvasTiling

        assert isinstance(settings.bounds, CanvasTiling)
        rows, columns = settings.bounds.grid(height, width)
        tokens = _tile_tokens(config)
        crop, thumbnail = (Part(View(kind, (1, tokens, tokens)), separated=False) for kind in _KINDS)
        return (*[crop] * (rows * columns), *([thumbnail] if rows * columns > 1 else []))

    def cut(self, pixels: npt.NDArray[np.uint8], settings: Settings) -> npt.NDArray[np.uint8]:
        from tokcli.models.cutting import canvas_tiles
        from tokcli.models.tiles import CanvasTiling

        assert isinstance(settings.bounds, CanvasTiling)
        return canvas_tiles(pixels, settings.bounds, settings.resample)

    def stitch(
        self,
        model: Any,
        settings: Settings,
        size: tuple[int, int],
        values: torch.Tensor,
        separator: torch.Tensor | None,
    ) -> torch.Tensor:
        return values.flatten(0, 1)

    def placeholder(self, config: Any, kind: MediaKind) -> int:
        return int(config.image_token_id)

    def expand(self, item: EncodedItem, config: Any, tokenizer: Any) -> Sequence[Block | Sequence[int]]:
        from tokcli.models.positions import Block

        def text(words: str) -> list[int]:
            ids: list[int] = tokenizer(words, add_special_tokens=False).input_ids
            return ids

        start, end = (
            getattr(tokenizer, name, None) or default
            for name, default in (("start_image_token", "<img>"), ("end_image_token", "</img>"))
        )
        if item.kind == "image":
            return [text(start), Block((1, 1, sum(view.num_tokens for view in item.views))), text(end)]
        frames, rows, columns = item.views[0].grid
        pieces: list[Block | Sequence[int]] = []
        for number in range(frames):
            between = f"{end}\n" if number else ""
            pieces += [text(f"{between}Frame{number + 1}: {start}"), Block((1, rows, columns))]
        return [*pieces, text(end)]

    def encoder_outputs(self, items: Sequence[EncodedItem], like: torch.Tensor) -> dict[str, Any]:
        return as_one_row(items, like)


def _tile_tokens(config: Any) -> int:
    """Tokens along the side of a tile: its patches, of which squares become one token each."""
    vision = config.vision_config
    return int(int(vision.image_size[0]) // int(vision.patch_size[0]) * config.downsample_ratio)


_KINDS: tuple[ViewKind, ...] = ("crop", "thumbnail")
