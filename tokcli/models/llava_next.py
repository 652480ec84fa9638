"""LLaVA-NeXT, also called LLaVA-1.6, and LLaVA-NeXT-Video: stills of any resolution; frames of one tile, or pooled.

LLaVA-NeXT was made for stills. What it is given of a video is the convention of :mod:`tokcli.models.llava`: each frame
as one tile, without newlines, all of them in one run of placeholders where a still has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tokcli.errors import ModelError
from tokcli.models.anyres import AnyresAdapter, tile_tokens
from tokcli.models.base import CLS_SIGNALS, ONE_SIZE, as_stills, kept_tokens
from tokcli.models.llava import Llava
from tokcli.models.pictures import PictureAdapter

if TYPE_CHECKING:
    import torch

    from tokcli.models.settings import Settings
    from tokcli.models.sizing import FixedGrid
    from tokcli.types import EncodedItem, MediaKind


class LlavaNext(AnyresAdapter):
    """Adapter for checkpoints of the type ``llava_next``."""

    model_class = "LlavaNextForConditionalGeneration"
    limits: ClassVar[tuple[str, ...]] = (
        "made for stills: a video is its frames, a tile each, in one run of placeholders, tokcli's convention",
        ONE_SIZE,
    )
    default_template = Llava.default_template
    part_types: ClassVar[Mapping[MediaKind, str]] = {"image": "image", "video": "image"}
    signals = PictureAdapter.signals | CLS_SIGNALS

    def frame_grid(self, config: Any) -> FixedGrid:
        from tokcli.models.sizing import FixedGrid

        pixels, tokens = int(config.vision_config.image_size), tile_tokens(config)
        return FixedGrid(pixels, pixels, tokens, tokens)

    def pack(self, model: Any, features: torch.Tensor, size: torch.Tensor, newline: torch.Tensor) -> torch.Tensor:
        packed, _ = model.model.pack_image_features(
            [features],
            size,
            vision_feature_select_strategy=model.config.vision_feature_select_strategy,
            image_newline=newline,
        )
        tokens: torch.Tensor = packed[0]
        return tokens

    def placeholder(self, config: Any, kind: MediaKind) -> int:
        return int(config.image_token_id)

    def encoder_outputs(self, items: Sequence[EncodedItem], like: torch.Tensor) -> dict[str, Any]:
        return as_stills([kept_tokens(item, like) for item in items])


class LlavaNextVideo(LlavaNext):
    """Adapter for checkpoints of the type ``llava_next_video``, whose frames are pooled before the projector."""

    model_class = "LlavaNextVideoForConditionalGeneration"
    limits = (ONE_SIZE,)
    vision_modules = ("vision_tower", "multi_modal_projector", "vision_resampler")
    vision_prefixes = (*LlavaNext.vision_prefixes, "vision_resampler.", "model.vision_resampler.")
    feature_settings = (*LlavaNext.feature_settings, "spatial_pool_mode", "spatial_pool_stride")
    default_template = (
        "{% for message in messages %}"
        "{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}{{ '<image>\n' }}{% endif %}"
        "{% if part['type'] == 'video' %}{{ '<video>\n' }}{% endif %}"
        "{% endfor %}"
        "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] + ' ' }}{% endif %}"
        "{% endfor %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )
    part_types: ClassVar[Mapping[MediaKind, str]] = AnyresAdapter.part_types

    def check_features(self, folder: Path, config: Any) -> None:
        super().check_features(folder, config)
        if tile_tokens(config) % config.spatial_pool_stride:
            raise ModelError(
                f"{folder}: spatial_pool_stride {config.spatial_pool_stride} doesn't divide the {tile_tokens(config)} "
                "tokens along the side of a frame"
            )

    def frame_grid(self, config: Any) -> FixedGrid:
        from tokcli.models.sizing import FixedGrid

        pixels, tokens = int(config.vision_config.image_size), tile_tokens(config) // config.spatial_pool_stride
        return FixedGrid(pixels, pixels, tokens, tokens)

    def encode(
        self, model: Any, pixels: torch.Tensor, settings: Settings, wanted: frozenset[str]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Signals of a token are means over the patches that were pooled, but for those of the projector."""
        import torch

        from tokcli.models.signals import squares

        tokens, signals = self.encode_pictures(model, pixels, settings, wanted, self.pooled_features)
        side = int(model.config.spatial_pool_stride)
        for name, values in signals.items():
            if name not in ("pre_projector", "projector_sensitivity"):
                signals[name] = torch.stack([squares(side, picture) for picture in values])
        return tokens.flatten(0, 1), {name: values.flatten(0, 1) for name, values in signals.items()}

    def pooled_features(self, model: Any, planes: torch.Tensor) -> torch.Tensor:
        """Projected tokens (n, tokens, D) of frames (n, 3, h, w), pooled before the projector."""
        (frames,) = model.model.get_video_features(planes[None], return_dict=True).pooler_output
        # Of each video (n, tokens, D), later one run of (n * tokens, D): transformers changed it.
        tokens: torch.Tensor = frames.reshape(len(planes), -1, frames.shape[-1])
        return tokens

    def placeholder(self, config: Any, kind: MediaKind) -> int:
        return AnyresAdapter.placeholder(self, config, kind)

    def encoder_outputs(self, items: Sequence[EncodedItem], like: torch.Tensor) -> dict[str, Any]:
        return AnyresAdapter.encoder_outputs(self, items, like)
