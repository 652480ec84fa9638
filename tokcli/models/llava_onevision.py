"""LLaVA-OneVision (arXiv:2408.03326): stills of any resolution, and video with a quarter of the tokens a frame.

What is cached of a video are its frames, pooled bilinearly, and one newline behind the last. Several stills in a prompt
are each what one alone would be; transformers' processor gives them a single tile if they come as a list of their own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from tokcli.models.anyres import AnyresAdapter, tile_tokens
from tokcli.models.base import HEAD_OFTEN_LEFT_OUT, ONE_SIZE
from tokcli.models.pictures import carried, without_head

if TYPE_CHECKING:
    import torch

    from tokcli.models.settings import Settings
    from tokcli.models.sizing import FixedGrid


class LlavaOnevision(AnyresAdapter):
    """Adapter for checkpoints of the type ``llava_onevision``."""

    model_class = "LlavaOnevisionForConditionalGeneration"
    stored = "tiles, overview and newlines of a still; pooled frames of a video and one newline; with their grids"
    limits = (
        "several stills in a prompt are each as one alone; transformers' processor gives a list of them one tile each",
        ONE_SIZE,
        HEAD_OFTEN_LEFT_OUT,
    )
    signals = AnyresAdapter.signals | {"probe_attention"}
    feature_settings = (*AnyresAdapter.feature_settings, "vision_aspect_ratio")
    default_template = (
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + ' ' }}"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}{{ '<image>' }}{% elif part['type'] == 'video' %}{{ '<video>' }}{% endif %}"
        "{% endfor %}"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endif %}"
        "{% endfor %}"
        "{{ '<|im_end|>' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    closes: ClassVar[bool] = True

    def withheld(self, config: Any) -> dict[str, str]:
        return without_head(config)

    def frame_grid(self, config: Any) -> FixedGrid:
        from tokcli.models.sizing import FixedGrid

        pixels, pooled = int(config.vision_config.image_size), math.ceil(tile_tokens(config) / 2)
        return FixedGrid(pixels, pixels, pooled, pooled)

    def encode(
        self, model: Any, pixels: torch.Tensor, settings: Settings, wanted: frozenset[str]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        tokens, signals = self.encode_pictures(model, pixels, settings, wanted)
        pool = model.model.apply_pooling
        pooled = {name: carried(values, pool).flatten(0, 1) for name, values in signals.items()}
        return pool(tokens).flatten(0, 1), pooled

    def canvas_grid(self, config: Any, rows: int, columns: int) -> tuple[int, int]:
        """Large canvases shrink to about as many tokens as ``anyres_max_N`` names tiles of."""
        tiles = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
        ratio = math.sqrt(rows * columns / (tiles * tile_tokens(config) ** 2))
        return (int(rows // ratio), int(columns // ratio)) if ratio > 1.1 else (rows, columns)

    def pack(self, model: Any, features: torch.Tensor, size: torch.Tensor, newline: torch.Tensor) -> torch.Tensor:
        packed, _ = model.model.pack_image_features(
            [features],
            size,
            image_newline=newline,
            vision_aspect_ratio=model.config.vision_aspect_ratio,
        )
        return packed[0]
