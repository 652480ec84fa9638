"""Idefics3 (arXiv:2408.12637) and SmolVLM (arXiv:2504.05299): numbered tiles of a still and the whole; whole frames.

The tiles of a still are cached as what they are together: one grid of tokens, in reading order over all tiles, so that
methods know which tokens are neighbours. In a prompt they stand tile by tile, each behind a marker of its row and
column: how many rows and columns there are is told by the grid and by that of the whole, which is one tile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tokcli.errors import ModelError
from tokcli.models.base import ONE_SIZE, PROJECTOR_SIGNALS, Part, kept_tokens
from tokcli.models.number_words import in_words
from tokcli.models.pictures import PictureAdapter
from tokcli.models.qwen3_vl import frame_seconds
from tokcli.types import View

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from tokcli.models.positions import Block
    from tokcli.models.settings import Preprocessing, Settings
    from tokcli.models.sizing import FittedGrid
    from tokcli.models.tiles import SplitTiling
    from tokcli.types import EncodedItem, MediaKind

# Defaults of the family's processors, for what a checkpoint leaves out.
_DEFAULTS = {
    "image_mean": (0.5, 0.5, 0.5),
    "image_std": (0.5, 0.5, 0.5),
    "resample": 1,
    "size": {"longest_edge": 4 * 364},
    "max_image_size": {"longest_edge": 364},
}
_TURNS = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}{{ '<image>' }}{% endif %}"
    "{% endfor %}"
    "{{ '<end_of_utterance>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_AROUND, _WHOLE = "<fake_token_around_image>", "<global-img>"


class Idefics3(PictureAdapter):
    """Adapter for checkpoints of the type ``idefics3``."""

    model_class = "Idefics3ForConditionalGeneration"
    stored = "the grid of all tiles of a still and that of the whole, frames of a video, with their grids"
    limits: ClassVar[tuple[str, ...]] = (
        "made for stills: a video is its frames, uncut stills one after another, which is tokcli's convention",
        ONE_SIZE,
    )
    tower = "vision_model"
    projector = "connector"
    # The connector is linear, so it moves all tokens by the same.
    signals = PictureAdapter.signals - PROJECTOR_SIGNALS
    vision_modules = ("vision_model", "connector")
    language_modules = ("text_model",)
    vision_prefixes = tuple(start + name for start in ("", "model.") for name in ("vision_model.", "connector."))
    feature_settings = ("scale_factor",)
    default_template = "<|begin_of_text|>" + _TURNS
    part_types: ClassVar[Mapping[MediaKind, str]] = {"image": "image", "video": "image"}

    def preprocessing(self, folder: Path, config: Any) -> Preprocessing:
        from tokcli.models.settings import Preprocessing, pixel_settings, read_processors
        from tokcli.models.sizing import FittedGrid
        from tokcli.models.tiles import SplitTiling

        image, video = ({**_DEFAULTS, **given} for given in read_processors(folder))
        # Older files say about video what newer ones have a file of its own for.
        if size := (video.get("video_sampling") or {}).get("video_size"):
            video["size"] = size
        side, patch = int(config.vision_config.image_size), int(config.vision_config.patch_size)
        if side // patch % config.scale_factor:
            raise ModelError(
                f"{folder}: scale_factor {config.scale_factor} doesn't divide the {side // patch} patches along the "
                "side of a tile; correct config.json"
            )
        tokens = _tile_tokens(config)

        def geometry(given: Mapping[str, Any], bounds: SplitTiling | FittedGrid) -> Mapping[str, Any]:
            made = given["max_image_size"]["longest_edge"]
            if made != side:
                raise ModelError(
                    f"{folder}: the processor makes tiles of {made} pixels (max_image_size), the tower takes {side}; "
                    "correct the preprocessor configuration files"
                )
            return {"bounds": bounds, "patch_size": patch, "merge_size": 1, "temporal_patch_size": 1}

        tiling = SplitTiling(side, _longest(folder, image), image.get("do_image_splitting", True) is not False)
        grid = FittedGrid(side, side, tokens, tokens, _longest(folder, video))
        return Preprocessing(
            pixel_settings(folder, "image", image, lambda given: geometry(given, tiling)),
            pixel_settings(folder, "video", video, lambda given: geometry(given, grid)),
        )

    def encode(
        self, model: Any, pixels: torch.Tensor, settings: Settings, wanted: frozenset[str]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        import torch

        from tokcli.models.preprocess import resize_frames

        side = self.picture_size(model)
        squares = torch.from_numpy(resize_frames(pixels.cpu().numpy(), (side, side), settings.resample))
        return super().encode(model, squares.to(pixels.device), settings, wanted)

    def token_side(self, config: Any) -> int:
        return int(config.scale_factor)

    def features(self, model: Any, planes: torch.Tensor) -> torch.Tensor:
        # Not by get_image_features, which takes a tile of zeros for padding and leaves it out.
        states = model.model.vision_model(planes.to(model.dtype), return_dict=True).last_hidden_state
        projected: torch.Tensor = model.model.connector(states)
        return projected

    def still_parts(self, config: Any, settings: Settings, height: int, width: int) -> tuple[Part, ...]:
        from tokcli.models.tiles import SplitTiling

        assert isinstance(settings.bounds, SplitTiling)
        rows, columns = settings.bounds.grid(height, width)
        tokens = _tile_tokens(config)
        whole = Part(View("thumbnail", (1, tokens, tokens)), separated=False)
        if rows * columns == 1:
            return (whole,)
        return Part(View("crop", (1, rows * tokens, columns * tokens)), separated=False), whole

    def cut(self, pixels: npt.NDArray[np.uint8], settings: Settings) -> npt.NDArray[np.uint8]:
        from tokcli.models.cutting import split_tiles
        from tokcli.models.tiles import SplitTiling

        assert isinstance(settings.bounds, SplitTiling)
        return split_tiles(pixels, settings.bounds, settings.resample)

    def stitch(
        self,
        model: Any,
        settings: Settings,
        size: tuple[int, int],
        values: torch.Tensor,
        separator: torch.Tensor | None,
    ) -> torch.Tensor:
        import torch

        from tokcli.models.tiles import SplitTiling

        assert isinstance(settings.bounds, SplitTiling)
        if len(values) == 1:
            return values[0]
        rows, columns = settings.bounds.grid(*size)
        side = _tile_tokens(model.config)
        # Rows of tiles of rows of tokens, to rows of tokens over all tiles.
        crop = values[:-1].unflatten(0, (rows, columns)).unflatten(2, (side, side)).transpose(1, 2)
        return torch.cat([crop.flatten(0, 3), values[-1]])

    def placeholder(self, config: Any, kind: MediaKind) -> int:
        return int(config.image_token_id)

    def reading_order(self, item: EncodedItem) -> torch.Tensor | None:
        import torch

        if len(item.views) == 1:
            return None
        crop, whole = item.views
        (_, height, width), side = crop.grid, whole.grid[1]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        tile = y // side * (width // side) + x // side
        place = (tile * side + y % side) * side + x % side
        return torch.cat([place.flatten(), torch.arange(whole.num_tokens) + crop.num_tokens])

    def expand(self, item: EncodedItem, config: Any, tokenizer: Any) -> Sequence[Block | Sequence[int]]:
        from tokcli.models.positions import Block

        def text(words: str) -> list[int]:
            ids: list[int] = tokenizer(words, add_special_tokens=False).input_ids
            return ids

        *crops, whole = item.views
        frames, side, _ = whole.grid
        block = Block((1, side, side))
        pieces: list[Block | Sequence[int]] = []
        before = ""
        for crop in crops:
            rows, columns = (length // side for length in crop.grid[1:])
            for row in range(1, rows + 1):
                for column in range(1, columns + 1):
                    pieces += [text(f"{before}{_AROUND}<row_{row}_col_{column}>"), block]
                    before = ""
                before = "\n"
            before = "\n\n"
        captions = self.captions(item)
        for number in range(frames):
            between = f"{_AROUND}{captions[number]}" if number else before
            pieces += [text(f"{between}{_AROUND}{_WHOLE}"), block]
        return [*pieces, text(_AROUND)]

    def captions(self, item: EncodedItem) -> list[str]:
        """Text before each frame of a video."""
        return [""] * item.views[-1].grid[0]

    def encoder_outputs(self, items: Sequence[EncodedItem], like: torch.Tensor) -> dict[str, Any]:
        import torch
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        if not items:
            return {}
        tokens = []
        for item in items:
            order, rows = self.reading_order(item), kept_tokens(item, like)
            tokens.append(rows if order is None else rows[order[item.kept.source].argsort(stable=True)])
        # Not a list: older versions of transformers take (blocks, tokens of a block, D), and a token may be a block.
        return {"image": BaseModelOutputWithPooling(pooler_output=torch.cat(tokens).unsqueeze(1))}


class SmolVLM(Idefics3):
    """Adapter for checkpoints of the type ``smolvlm``: the same, with the time of every frame of a video as text."""

    model_class = "SmolVLMForConditionalGeneration"
    stored = "the grid of all tiles of a still and that of the whole; frames of a video, their indices and rate"
    limits: ClassVar[tuple[str, ...]] = (ONE_SIZE,)
    default_template = "<|im_start|>" + _TURNS
    video_template: ClassVar[str | None] = default_template
    """transformers too takes this for prompts with a video."""
    part_types: ClassVar[Mapping[MediaKind, str]] = {"image": "image", "video": "video"}

    def around(self, item: EncodedItem) -> tuple[str, str]:
        if item.kind == "image":
            return "", ""
        hours, seconds = divmod(int(item.duration_seconds), 3600)
        length = f"{hours}:{seconds // 60:02d}:{seconds % 60:02d}"
        frames = in_words(item.views[0].grid[0])
        intro = f"You are provided the following series of {frames} frames from a {length} [H:MM:SS] video.\n"
        return intro + self.captions(item)[0], "\n\n"

    def captions(self, item: EncodedItem) -> list[str]:
        starts = [seconds for (seconds,) in frame_seconds(item, 1)]
        return [f"\nFrame from {int(start // 60):02d}:{int(start % 60):02d}:" for start in starts]


def _tile_tokens(config: Any) -> int:
    """Tokens along the side of a tile: its patches, of which squares become one token each."""
    vision = config.vision_config
    return int(vision.image_size // vision.patch_size // config.scale_factor)


def _longest(folder: Path, given: Mapping[str, Any]) -> int:
    size = given["size"]
    if not isinstance(size, Mapping) or "longest_edge" not in size:
        raise ModelError(f"{folder}: the processor's size must name the longest_edge, got {size}")
    return int(size["longest_edge"])
