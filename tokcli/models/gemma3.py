"""Gemma 3 (arXiv:2503.19786): one size of picture, and a language model in which its tokens see each other.

A picture's tokens attend to all of the same picture, not only to those before; in most layers a token sees only as many
tokens as a window holds. Both go by the tokens that are there: what a method dropped is not in the window. A video is
its frames, each as a still would be, one after another: the family's own way with several stills, and all that is
known of its way with video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tokcli.errors import ModelError
from tokcli.models.anyres import check_side
from tokcli.models.base import HEAD_OFTEN_LEFT_OUT, ONE_SIZE, only_view
from tokcli.models.flat import as_one_row
from tokcli.models.llava import Llava
from tokcli.models.pictures import PictureAdapter, without_head

if TYPE_CHECKING:
    import torch

    from tokcli.models.in_tower_clip import ClipBlocks
    from tokcli.models.positions import Block
    from tokcli.models.settings import Preprocessing, Settings
    from tokcli.types import EncodedItem, MediaKind

# Defaults of Gemma3ImageProcessor, for what a checkpoint leaves out.
_DEFAULTS = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5), "resample": 2}
_APART = "\n\n"


class Gemma3(PictureAdapter):
    """Adapter for checkpoints of the type ``gemma3``."""

    model_class = "Gemma3ForConditionalGeneration"
    limits = (
        "made for stills: a video is its frames, a still each, one after another, which is tokcli's convention",
        "do_pan_and_scan is refused; published checkpoints leave it off",
        "windows of sliding attention count the tokens that were kept",
        ONE_SIZE,
        HEAD_OFTEN_LEFT_OUT,
    )
    signals = PictureAdapter.signals | {"probe_attention"}
    joins_in_projector = True
    vision_modules = ("vision_tower", "multi_modal_projector")
    vision_prefixes = Llava.vision_prefixes
    feature_settings = ("mm_tokens_per_image",)
    default_template = (
        "{{ bos_token }}"
        "{% set told = namespace(first='') %}"
        "{% for message in messages %}"
        "{% if message['role'] == 'system' %}{% set told.first = message['content'][0]['text'] + '\n\n' %}"
        "{% else %}"
        "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' + told.first }}"
        "{% set told.first = '' %}"
        "{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<start_of_image>{% else %}{{ part['text'] | trim }}{% endif %}"
        "{% endfor %}"
        "{{ '<end_of_turn>\n' }}"
        "{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    )
    part_types: ClassVar[Mapping[MediaKind, str]] = {"image": "image", "video": "image"}

    def preprocessing(self, folder: Path, config: Any) -> Preprocessing:
        from tokcli.models.settings import Preprocessing, pixel_settings, read_processors
        from tokcli.models.sizing import FixedGrid

        vision = config.vision_config
        pixels, patches = int(vision.image_size), int(vision.image_size // vision.patch_size)
        tokens = int(config.mm_tokens_per_image**0.5)
        if tokens**2 != config.mm_tokens_per_image or patches % tokens:
            raise ModelError(
                f"{folder}: mm_tokens_per_image {config.mm_tokens_per_image} is no square grid that divides the "
                f"{patches}x{patches} patches of the tower; correct config.json"
            )
        image, _ = read_processors(folder)
        if image.get("do_pan_and_scan"):
            raise ModelError(
                f"{folder}: the image processor sets do_pan_and_scan=true, which tokcli can't do; set it to false"
            )

        def geometry(given: Mapping[str, Any]) -> Mapping[str, Any]:
            check_side(folder, given, pixels)
            bounds = FixedGrid(pixels, pixels, tokens, tokens)
            return {
                "bounds": bounds,
                "patch_size": int(vision.patch_size),
                "merge_size": 1,
                "temporal_patch_size": 1,
            }

        settings = pixel_settings(folder, "image", {**_DEFAULTS, **image}, geometry)
        return Preprocessing(settings, settings)

    def withheld(self, config: Any) -> dict[str, str]:
        return without_head(config)

    def features(self, model: Any, planes: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = model.model.get_image_features(planes, return_dict=True).pooler_output
        return features

    def token_side(self, config: Any) -> int:
        vision = config.vision_config
        return int(vision.image_size // vision.patch_size // config.mm_tokens_per_image**0.5)

    def in_tower(self, model: Any, settings: Settings, grid: tuple[int, int]) -> ClipBlocks:
        from tokcli.models.in_tower_clip import ClipBlocks
        from tokcli.models.preprocess import to_planes

        tower, projector = model.model.vision_tower, model.model.multi_modal_projector
        side, (rows, columns) = int(projector.kernel_size), grid

        def embed(pixels: torch.Tensor) -> torch.Tensor:
            """Patches square by square: those of a token beside each other, which attention does not mind."""
            states: torch.Tensor = tower.embeddings(to_planes(pixels, settings))
            return states.unflatten(1, (rows, side, columns, side)).transpose(2, 3).flatten(1, 4)

        def project(states: torch.Tensor) -> torch.Tensor:
            pooled = tower.post_layernorm(states.unflatten(1, (side * side, -1))).mean(dim=1)
            tokens: torch.Tensor = projector.mm_soft_emb_norm(pooled) @ projector.mm_input_projection_weight
            return tokens.type_as(states)

        return ClipBlocks(tower.encoder.layers, len(tower.encoder.layers), grid, embed, project, unit=side * side)

    def placeholder(self, config: Any, kind: MediaKind) -> int:
        return int(config.boi_token_index)

    def visual_token(self, config: Any, kind: MediaKind) -> int:
        return int(config.image_token_index)

    def around(self, item: EncodedItem) -> tuple[str, str]:
        return _APART, _APART

    def expand(self, item: EncodedItem, config: Any, tokenizer: Any) -> Sequence[Block | Sequence[int]]:
        from tokcli.models.positions import Block

        frames, rows, columns = only_view(item).grid
        start, end = [int(config.boi_token_index)], [int(config.eoi_token_index)]
        between = [*end, *tokenizer(_APART * 2, add_special_tokens=False).input_ids, *start]
        pieces: list[Block | Sequence[int]] = []
        for number in range(frames):
            pieces += [between if number else start, Block((1, rows, columns))]
        return [*pieces, end]

    def encoder_outputs(self, items: Sequence[EncodedItem], like: torch.Tensor) -> dict[str, Any]:
        return as_one_row(items, like)

    def further_inputs(self, ids: torch.Tensor, config: Any) -> dict[str, torch.Tensor]:
        return {"token_type_ids": (ids == config.image_token_index).long()}
