"""GLM-4.1V-Thinking, GLM-4.5V (arXiv:2507.01006) and GLM-4.6V: blocks of frames with their seconds behind them.

In a prompt the frames of a video stand where stills do, under the stills' token; only the markers around them tell. So
transformers' own run can't have a still and a video in one prompt; from a cache, where their order is known, it works.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tokcli.models.base import as_stills, kept_tokens, only_view
from tokcli.models.grid import GridAdapter
from tokcli.models.qwen3_vl import clip_geometry, frame_seconds

if TYPE_CHECKING:
    import torch

    from tokcli.models.positions import Block
    from tokcli.models.settings import Preprocessing
    from tokcli.models.signals import Look
    from tokcli.types import EncodedItem, MediaKind

# Defaults of the family's processors, for what a checkpoint leaves out.
_IMAGE_SIZE = {"shortest_edge": 112 * 112, "longest_edge": 28 * 28 * 15000}
_VIDEO_SIZE = {"shortest_edge": 112 * 112, "longest_edge": 28 * 28 * 2 * 30000}


class Glm4V(GridAdapter):
    """Adapter for checkpoints of the type ``glm4v``."""

    model_class = "Glm4vForConditionalGeneration"
    stored = "tokens, grid, frame indices and rate (seconds are text)"
    limits = (
        "a still and a video in one prompt: works from a cache; transformers has no such prompt to compare it with",
    )
    vision_settings: ClassVar[tuple[str, ...]] = (
        "depth",
        "hidden_size",
        "hidden_act",
        "attention_bias",
        "num_heads",
        "in_channels",
        "image_size",
        "patch_size",
        "rms_norm_eps",
        "spatial_merge_size",
        "temporal_patch_size",
        "out_hidden_size",
        "intermediate_size",
    )
    default_template = (
        "[gMASK]<sop>"
        "{% for message in messages %}"
        "{{ '<|' + message['role'] + '|>\n' }}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<|begin_of_image|><|image|><|end_of_image|>"
        "{% elif part['type'] == 'video' %}<|begin_of_video|><|video|><|end_of_video|>"
        "{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
    )

    def preprocessing(self, folder: Path, config: Any) -> Preprocessing:
        from tokcli.models.settings import Preprocessing, check_patches, pixel_settings, read_processors

        image, video = read_processors(folder)
        preprocessing = Preprocessing(
            pixel_settings(folder, "image", {"size": _IMAGE_SIZE, **image}, clip_geometry),
            pixel_settings(folder, "video", {"size": _VIDEO_SIZE, **video}, clip_geometry),
        )
        check_patches(folder, config.vision_config, preprocessing)
        return preprocessing

    def patches(self, model: Any, unit: int) -> tuple[Any, Look]:
        """What is merged by a convolution, which is given the (tokens, C, rows, columns) of their patches."""
        from tokcli.models.signals import first_argument

        return model.model.visual.downsample, lambda call: first_argument(call).float().mean(dim=(2, 3))

    def sensitivity(self, model: Any, unit: int) -> tuple[Any, Look]:
        """That of the convolution and what follows it."""
        from tokcli.models.sensitivity import call_sensitivity, in_float32
        from tokcli.models.signals import first_argument

        visual = model.model.visual

        def look(call: tuple[tuple[Any, ...], Mapping[str, Any]]) -> torch.Tensor:
            given, merge, finish = first_argument(call), in_float32(visual.downsample), in_float32(visual.merger)
            return call_sensitivity(
                lambda squares: finish(merge(squares).flatten(1)),
                given,
                lambda squares: squares.flatten(1),
                lambda rows: rows.unflatten(1, given.shape[1:]),
            )

        return visual.downsample, look

    def visual_token(self, config: Any, kind: MediaKind) -> int:
        return int(config.image_token_id)

    def expand(self, item: EncodedItem, config: Any, tokenizer: Any) -> Sequence[Block | Sequence[int]]:
        from tokcli.models.positions import Block

        steps, height, width = only_view(item).grid
        if item.kind == "image":
            return [Block((1, height, width))]
        pieces: list[Block | Sequence[int]] = []
        before = ""
        for frames in frame_seconds(item, config.vision_config.temporal_patch_size)[:steps]:
            pieces += [tokenizer(f"{before}<|begin_of_image|>", add_special_tokens=False).input_ids]
            pieces += [Block((1, height, width))]
            before = f"<|end_of_image|>{self.time_text(frames[0])}"
        return [*pieces, tokenizer(before, add_special_tokens=False).input_ids]

    def time_text(self, seconds: float) -> str:
        """What stands behind a step whose first frame is at ``seconds``."""
        return str(int(seconds))

    def encoder_outputs(self, items: Sequence[EncodedItem], like: torch.Tensor) -> dict[str, Any]:
        return as_stills([kept_tokens(item, like) for item in items])


class Glm4VMoe(Glm4V):
    """Adapter for checkpoints of the type ``glm4v_moe``; experts are the language model's own affair."""

    model_class = "Glm4vMoeForConditionalGeneration"


class Glm46V(Glm4V):
    """Adapter for checkpoints of the type ``glm46v``."""

    model_class = "Glm46VForConditionalGeneration"

    def time_text(self, seconds: float) -> str:
        return f"{seconds:.1f} seconds"
