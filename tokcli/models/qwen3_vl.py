"""Qwen3-VL (arXiv:2511.21631), dense and mixture of experts: DeepStack, and seconds as text between frames.

The language model adds further features of the tower, a DeepStack level each, to the visual tokens at its first layers.
They are kept with the tokens. In the prompt every temporal step of a video is a block of its own, after its seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tokcli.errors import ModelError
from tokcli.models.base import CHATML_WITHOUT_SYSTEM, only_view
from tokcli.models.grid import GridAdapter

if TYPE_CHECKING:
    import torch

    from tokcli.models.positions import Block
    from tokcli.models.settings import Preprocessing
    from tokcli.types import EncodedItem

# Defaults of Qwen3VLVideoProcessor, for what a checkpoint leaves out.
_VIDEO_DEFAULTS = {
    "image_mean": (0.5, 0.5, 0.5),
    "image_std": (0.5, 0.5, 0.5),
    "patch_size": 16,
    "size": {"shortest_edge": 128 * 32 * 32, "longest_edge": 32 * 32 * 768},
}


class Qwen3VL(GridAdapter):
    """Adapter for checkpoints of the type ``qwen3_vl``."""

    model_class = "Qwen3VLForConditionalGeneration"
    takes_all_rows = "vectors for DeepStack come out of it on the way, one for every token"
    stored = "tokens, a vector beside each for every DeepStack level, grid, frame indices and rate (seconds are text)"
    vision_settings: ClassVar[tuple[str, ...]] = (
        "depth",
        "hidden_size",
        "hidden_act",
        "intermediate_size",
        "num_heads",
        "in_channels",
        "patch_size",
        "spatial_merge_size",
        "temporal_patch_size",
        "num_position_embeddings",
        "deepstack_visual_indexes",
        "out_hidden_size",
    )
    default_template = CHATML_WITHOUT_SYSTEM

    def preprocessing(self, folder: Path, config: Any) -> Preprocessing:
        from tokcli.models.settings import check_patches, grid_preprocessing, read_processors

        image, video = read_processors(folder)
        preprocessing = grid_preprocessing(
            folder, {"patch_size": 16, **image}, {**_VIDEO_DEFAULTS, **video}, video_geometry=clip_geometry
        )
        check_patches(folder, config.vision_config, preprocessing)
        return preprocessing

    def deepstack_levels(self, config: Any) -> int:
        return len(config.vision_config.deepstack_visual_indexes)

    def expand(self, item: EncodedItem, config: Any, tokenizer: Any) -> Sequence[Block | Sequence[int]]:
        from tokcli.models.positions import Block

        steps, height, width = only_view(item).grid
        if item.kind == "image":
            return [Block((1, height, width))]
        start, end = (tokenizer.convert_ids_to_tokens(token) for token in self.vision_markers(config))
        pieces: list[Block | Sequence[int]] = []
        # Special tokens cut the text, so that it may be tokenized piece by piece.
        before = ""
        for seconds in step_seconds(item, config.vision_config.temporal_patch_size)[:steps]:
            pieces.append(tokenizer(f"{before}<{seconds:.1f} seconds>{start}", add_special_tokens=False).input_ids)
            pieces.append(Block((1, height, width)))
            before = end
        return [*pieces, tokenizer(end, add_special_tokens=False).input_ids]

    def vision_markers(self, config: Any) -> tuple[int, int]:
        """Ids of the tokens before and after every block."""
        return config.vision_start_token_id, config.vision_end_token_id

    def encoder_outputs(self, items: Sequence[EncodedItem], like: torch.Tensor) -> dict[str, Any]:
        from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

        outputs: dict[str, Any] = {}
        for item in items:
            kept = item.kept
            if kept.deepstack is None:
                raise ModelError(
                    f"item {item.id!r} has no DeepStack levels, which this model takes; compress it again with it"
                )
            empty = BaseModelOutputWithDeepstackFeatures(
                pooler_output=[], deepstack_features=[[] for _ in range(kept.levels)]
            )
            output = outputs.setdefault(item.kind, empty)
            output.pooler_output.append(kept.tokens.to(device=like.device, dtype=like.dtype))
            levels = kept.deepstack.to(device=like.device, dtype=like.dtype)
            for number, features in enumerate(output.deepstack_features):
                features.append(levels[:, number])
        return outputs


class Qwen3VLMoe(Qwen3VL):
    """Adapter for checkpoints of the type ``qwen3_vl_moe``; experts are the language model's own affair."""

    model_class = "Qwen3VLMoeForConditionalGeneration"


def step_seconds(item: EncodedItem, frames_per_step: int) -> list[float]:
    """Seconds of each temporal step: the middle between its first and its last frame."""
    # A last step that isn't full was filled with its last frame.
    return [(frames[0] + frames[-1]) / 2 for frames in frame_seconds(item, frames_per_step)]


def frame_seconds(item: EncodedItem, frames_per_step: int) -> list[list[float]]:
    """Seconds of the frames of each temporal step.

    By the number of the frame and the frame rate, as the model's own processor counts, which knows no times of frames;
    by the times where the file tells no rate.
    """
    fps = item.source_fps
    seconds = [index / fps for index in item.indices.tolist()] if fps else item.times.tolist()
    return [seconds[first : first + frames_per_step] for first in range(0, len(seconds), frames_per_step)]


def clip_geometry(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """How Qwen3-VL's video processor reads it: bounds are for all frames together."""
    from tokcli.models.settings import grid_geometry
    from tokcli.models.sizing import ClipBounds

    size = config["size"]
    bounds = ClipBounds(
        int(size["shortest_edge"]),
        int(size["longest_edge"]),
        cap_pixels_per_frame=bool(config.get("cap_pixels_per_frame")),
        max_video_tokens=int(config.get("max_video_tokens") or 768),
    )
    return {**grid_geometry("video")({**config, "size": {}}), "bounds": bounds}
