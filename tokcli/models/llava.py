"""LLaVA (arXiv:2304.08485, 2310.03744): a CLIP tower with [CLS], a projector of two layers, positions in one dimension.

LLaVA was made for stills. What it is given of a video is this project's convention, close to FreeVA (arXiv:2405.07798)
and the same for every LLaVA checkpoint: the sampled frames one after another, a frame a temporal step, all of them in
one run of placeholders where a still has its own. The grid is (frames, rows, columns).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tokcli.errors import ModelError
from tokcli.models.base import CLS_SIGNALS, SQUARE_SIGNALS, as_stills, kept_tokens, only_view
from tokcli.models.pictures import PictureAdapter

if TYPE_CHECKING:
    import torch

    from tokcli.models.in_tower_clip import ClipBlocks
    from tokcli.models.positions import Block
    from tokcli.models.settings import Preprocessing, Settings
    from tokcli.models.sizing import FixedSize
    from tokcli.types import EncodedItem, MediaKind


class Llava(PictureAdapter):
    """Adapter for checkpoints of the type ``llava`` with a CLIP tower."""

    model_class = "LlavaForConditionalGeneration"
    feature_settings = (
        "vision_feature_layer",
        "vision_feature_select_strategy",
        "projector_hidden_act",
        "multimodal_projector_bias",
    )
    limits = (
        "made for stills: a video is its frames in one run of placeholders, which is tokcli's convention",
        "a CLIP tower and vision_feature_select_strategy=default only",
    )
    vision_modules = ("vision_tower", "multi_modal_projector")
    vision_prefixes = tuple(
        start + name
        for start in ("", "model.")
        for name in ("vision_tower.vision_model.", "vision_tower.", "multi_modal_projector.")
    )
    default_template = (
        "{% for message in messages %}"
        "{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\n' }}{% endif %}{% endfor %}"
        "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endif %}"
        "{% endfor %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )
    """Vicuna's layout, which LLaVA-1.5 was tuned with."""
    part_types: ClassVar[Mapping[MediaKind, str]] = {"image": "image", "video": "image"}
    signals = PictureAdapter.signals | CLS_SIGNALS | SQUARE_SIGNALS
    of_squares = True

    def preprocessing(self, folder: Path, config: Any) -> Preprocessing:
        from tokcli.models.settings import Preprocessing, pixel_settings, read_json

        vision = config.vision_config
        _check_features(folder, config)
        processor = read_json(folder / "processor_config.json").get("image_processor")
        processor = processor or read_json(folder / "preprocessor_config.json")

        def geometry(given: Mapping[str, Any]) -> Mapping[str, Any]:
            size, side = _frame_size(folder, given), vision.image_size
            if (size.height, size.width) != (side, side):
                raise ModelError(
                    f"{folder}: the image processor makes frames of {size.width}x{size.height} pixels, the tower takes "
                    f"{side}x{side}; correct preprocessor_config.json"
                )
            return {
                "bounds": size,
                "patch_size": int(vision.patch_size),
                "merge_size": 1,
                "temporal_patch_size": 1,
            }

        settings = pixel_settings(folder, "image", processor, geometry)
        return Preprocessing(settings, settings)

    def features(self, model: Any, planes: torch.Tensor) -> torch.Tensor:
        import torch

        extra: dict[str, Any] = {}
        if tuple(planes.shape[2:]) != (self.picture_size(model),) * 2:
            extra["interpolate_pos_encoding"] = True
        output = model.model.get_image_features(planes, return_dict=True, **extra)
        return torch.stack(list(output.pooler_output))

    def has_cls(self, config: Any) -> bool:
        return True

    def in_tower(self, model: Any, settings: Settings, grid: tuple[int, int]) -> ClipBlocks:
        from tokcli.models.in_tower_clip import ClipBlocks
        from tokcli.models.preprocess import to_planes

        tower, layers = model.model.vision_tower, model.model.vision_tower.encoder.layers
        layer = model.config.vision_feature_layer
        own = model.config.vision_config.image_size // settings.patch_size
        resized = grid != (own, own)

        def embed(pixels: torch.Tensor) -> torch.Tensor:
            patches = tower.embeddings(to_planes(pixels, settings), interpolate_pos_encoding=resized)
            states: torch.Tensor = tower.pre_layrnorm(patches)
            return states

        # What comes out of the blocks that are left has no use: LLaVA's features are those of an earlier one.
        run = layer if layer >= 0 else len(layers) + 1 + layer
        return ClipBlocks(layers, run, grid, embed, model.model.multi_modal_projector, leading=1)

    def placeholder(self, config: Any, kind: MediaKind) -> int:
        return int(config.image_token_id)

    def expand(self, item: EncodedItem, config: Any, tokenizer: Any) -> Sequence[Block | Sequence[int]]:
        from tokcli.models.positions import Block

        return [Block(only_view(item).grid)]

    def encoder_outputs(self, items: Sequence[EncodedItem], like: torch.Tensor) -> dict[str, Any]:
        return as_stills([kept_tokens(item, like) for item in items])


def _check_features(folder: Path, config: Any) -> None:
    """Raise ``ModelError`` for towers and choices of features whose tokens aren't a grid of patches."""
    tower = config.vision_config.model_type
    if tower != "clip_vision_model":
        raise ModelError(f"{folder}: LLaVA with a tower of the type {tower!r} has no adapter; it must be a CLIP tower")
    if config.vision_feature_select_strategy != "default":
        raise ModelError(
            f"{folder}: vision_feature_select_strategy is {config.vision_feature_select_strategy!r}, which keeps [CLS] "
            "among the tokens; tokcli can do 'default' only"
        )
    if not isinstance(config.vision_feature_layer, int):
        raise ModelError(f"{folder}: vision_feature_layer must be one layer, got {config.vision_feature_layer}")


def _frame_size(folder: Path, processor: Mapping[str, Any]) -> FixedSize:
    """The size that CLIP's image processor gives to frames, by its own defaults."""
    from tokcli.models.sizing import FixedSize

    if processor.get("do_pad"):
        raise ModelError(
            f"{folder}: the image processor sets do_pad=true, which tokcli can't reproduce; set it to false"
        )
    size, crop = processor.get("size") or 224, processor.get("crop_size") or 224
    size = {"shortest_edge": size} if isinstance(size, int) else size
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    if processor.get("do_center_crop", True) is False:
        if "height" not in size:
            raise ModelError(
                f"{folder}: the image processor resizes the shortest edge and cuts nothing off, which leaves frames of "
                "different shapes; set do_center_crop=true, or size to a height and a width"
            )
        return FixedSize(int(size["height"]), int(size["width"]))
    height, width = int(crop["height"]), int(crop["width"])
    if "height" in size:
        if (int(size["height"]), int(size["width"])) != (height, width):
            raise ModelError(
                f"{folder}: the image processor cuts {width}x{height} pixels out of frames of "
                f"{size['width']}x{size['height']}, which tokcli can't do; set size to the shortest edge"
            )
        return FixedSize(height, width)
    shortest = int(size["shortest_edge"])
    if shortest < max(height, width):
        raise ModelError(
            f"{folder}: the image processor cuts {width}x{height} pixels out of frames with a side of {shortest}; "
            "correct preprocessor_config.json"
        )
    return FixedSize(height, width, shortest)
