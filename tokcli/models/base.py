"""What a model family's adapter offers: how its tower encodes, and how its language model takes the tokens back.

Both ends of a family are in one object, because the places that tokens get when they are encoded must be those that
they have when they are spliced into a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tokcli.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from tokcli.models.in_tower import TowerBlocks
    from tokcli.models.positions import Block, Text
    from tokcli.models.settings import Preprocessing, Settings
    from tokcli.types import EncodedItem, MediaKind, View

SCHEMES = ("original", "hf", "compact")
"""Position schemes, the default first; explained in :mod:`tokcli.models.positions`."""
TOWER_SIGNALS = frozenset(
    {
        "received_attention",
        "received_layers",
        "meanq",
        "hub_attention",
        "keys",
        "head_mean_keys",
        "pre_projector",
    }
)
"""Signals that come out of every tower; explained in docs/signals.md."""
PROJECTOR_SIGNALS = frozenset({"projector_sensitivity"})
"""Signals that run the projector again, many times."""
CLS_SIGNALS = frozenset({"cls_attention", "cls_attention_layers", "cls_logits"})
"""Signals that come out of towers with [CLS]."""
SQUARE_SIGNALS = frozenset({"pixel_change", "neighbour_distance", "patch_entropy"})
"""Signals of the pixels of families whose tokens are squares of a frame."""

ONE_SIZE = "frames and tiles come in one size: --method downsample and features=preview are refused"
"""The limit of towers that can't be given a smaller frame."""

HEAD_OFTEN_LEFT_OUT = "the signal probe_attention needs SigLIP's pooling head, which published checkpoints left out"
"""The limit of families whose tower is a SigLIP that may have kept its head."""

_SYSTEM = (
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
)
CHATML = (
    "{% for message in messages %}" + _SYSTEM + "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen's chat layout."""
CHATML_WITHOUT_SYSTEM = CHATML.replace(_SYSTEM, "")
"""The same without a system message where none was given."""


@dataclass(frozen=True)
class Part:
    """One view of a still, as it stands in the list of tokens."""

    view: View
    separated: bool
    """Whether each of its rows ends with a separator, which stands at x = W' and isn't counted by the grid."""

    @property
    def length(self) -> int:
        """Rows of the token list."""
        t, h, w = self.view.grid
        return t * h * (w + self.separated)


class FamilyAdapter(Protocol):
    """One model family. Stateless."""

    model_class: ClassVar[str]
    """Name of the class in transformers that opens the family's checkpoints."""
    vision_modules: ClassVar[tuple[str, ...]]
    """Children of ``model.model`` that only encoding needs."""
    language_modules: ClassVar[tuple[str, ...]]
    """Children of ``model.model`` that only answering needs."""
    vision_prefixes: ClassVar[tuple[str, ...]]
    """How the names of the vision half's tensors begin in checkpoint files, over all layouts in use."""
    default_template: ClassVar[str]
    """Chat template for checkpoints that come without one."""
    video_template: ClassVar[str | None]
    """Chat template for prompts with a video, whatever the checkpoint comes with; None for no other than its own."""
    part_types: ClassVar[Mapping[MediaKind, str]]
    """What chat templates of this family call an item of each kind."""
    system_as_parts: ClassVar[bool]
    """Whether they take a system message as a list of parts, like any other, and not as a string."""
    position_schemes: ClassVar[tuple[str, ...]]
    signals: ClassVar[frozenset[str]]
    """Signals that encoding can add to the tokens."""

    def withheld(self, config: Any) -> Mapping[str, str]:
        """Those of ``signals`` that a checkpoint can't give, each with the reason."""

    of_squares: ClassVar[bool]
    """Whether a token is of a square of the frame that is given: then ``encode`` leaves ``SQUARE_SIGNALS`` out."""
    stored: ClassVar[str]
    """What a cache holds of an item, beside what every cache holds."""
    limits: ClassVar[tuple[str, ...]]
    """What users of the family should know that it can't do, or does by a convention of tokcli's."""

    def preprocessing(self, folder: Path, config: Any) -> Preprocessing:
        """How the checkpoint wants its pixels, checked against what its tower is made for.

        Raises:
            ModelError: The checkpoint's files contradict each other, or ask for something that tokcli doesn't do.
        """

    def tower_settings(self, config: Any) -> dict[str, Any]:
        """All of the configuration that changes what the tower computes, JSON-able."""

    def deepstack_levels(self, config: Any) -> int:
        """How many vectors the language model takes beside each token; ``encode`` gives them as a signal."""

    def encode(
        self, model: Any, pixels: torch.Tensor, settings: Settings, wanted: frozenset[str]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Tokens of frames, and those of the ``wanted`` signals that come out of the tower.

        Args:
            pixels: uint8 (n, h, w, 3), n a multiple of the temporal patch size.

        Returns:
            (N, D) in (t, y, x) order, and arrays with N rows by name; ``deepstack`` (N, L, D) unasked, where there are
            levels.
        """

    def in_tower(self, model: Any, settings: Settings, grid: tuple[int, int]) -> TowerBlocks:
        """The tower taken apart, for methods that reduce tokens inside; ``grid`` are a frame's rows and columns.

        Raises:
            ModelError: Nothing can be left out inside this tower; says why.
        """

    def still_parts(self, config: Any, settings: Settings, height: int, width: int) -> tuple[Part, ...]:
        """What a still of that size becomes; called only where ``settings.bounds`` is a ``Tiling``."""

    def encode_still(
        self, model: Any, pixels: npt.NDArray[np.uint8], settings: Settings, at_once: int, wanted: frozenset[str]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """As ``encode``, of a still in the order of its parts; called only where ``settings.bounds`` is a ``Tiling``.

        Args:
            pixels: uint8 (1, h, w, 3), of the source's own size.
            at_once: Patches to give to the tower in one call.

        Returns:
            Tokens (N, D), and arrays with N rows by name, in which separators have zeros.
        """

    def closing(self, model: Any) -> torch.Tensor | None:
        """The separator (D,) behind the last frame of a video; None for families without one."""

    def placeholder(self, config: Any, kind: MediaKind) -> int:
        """Id of the token that stands for visual tokens of ``kind`` in a prompt."""

    def visual_token(self, config: Any, kind: MediaKind) -> int:
        """Id under which visual tokens of ``kind`` go to the language model, mostly the placeholder's."""

    def around(self, item: EncodedItem) -> tuple[str, str]:
        """Text directly before and after the item's placeholder, to be tokenized together with what it joins."""

    def reading_order(self, item: EncodedItem) -> torch.Tensor | None:
        """int64 (N,): where each row of the item's full token list stands among its tokens in a prompt; None for there.

        ``encoder_outputs`` gives the tokens in that order.
        """

    def expand(self, item: EncodedItem, config: Any, tokenizer: Any) -> Sequence[Block | Sequence[int]]:
        """What replaces the item's single placeholder in the prompt: blocks of visual tokens, ids of text between."""

    def positions(self, parts: Sequence[Text | Block], kept: torch.Tensor, scheme: str) -> torch.Tensor:
        """Positions of the tokens that are left of a prompt.

        Args:
            parts: What the FULL prompt consists of.
            kept: int64 (K,), indices into the full prompt, ascending.
            scheme: One of ``position_schemes``.

        Returns:
            int64 (..., K), as the language model takes them.
        """

    def encoder_outputs(self, items: Sequence[EncodedItem], like: torch.Tensor) -> dict[str, Any]:
        """``mm_encoder_outputs`` for a batch: the kept tokens of its items in order, dtype and device as ``like``.

        A fresh object on every call: ``generate`` changes it.
        """

    def further_inputs(self, ids: torch.Tensor, config: Any) -> dict[str, torch.Tensor]:
        """What the language model's ``forward`` takes beside all that, for ``ids`` int64 (B, S)."""


def only_view(item: EncodedItem) -> View:
    """The view of an item of a family that makes one. Raises ``ModelError`` where another family made the item."""
    if len(item.views) != 1:
        raise ModelError(
            f"item {item.id!r} has {len(item.views)} views, this family has one; compress it again with this model"
        )
    return item.views[0]


def kept_tokens(item: EncodedItem, like: torch.Tensor) -> torch.Tensor:
    """An item's tokens in the dtype and on the device of ``like``."""
    return item.kept.tokens.to(device=like.device, dtype=like.dtype)


def as_stills(tokens: Sequence[torch.Tensor]) -> dict[str, Any]:
    """``mm_encoder_outputs`` of families whose language model is given everything as stills, item by item."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    return {"image": BaseModelOutputWithPooling(pooler_output=list(tokens))} if tokens else {}


class PlainAdapter:
    """What most families are without: levels, tiles, separators, text around items, an id for visual tokens alone."""

    stored: ClassVar[str] = "tokens as the projector gives them, with their grid"
    limits: ClassVar[tuple[str, ...]] = ()
    of_squares: ClassVar[bool] = False
    video_template: ClassVar[str | None] = None
    vision_settings: ClassVar[tuple[str, ...]]
    """Fields of ``vision_config`` that change what the tower computes."""
    feature_settings: ClassVar[tuple[str, ...]] = ()
    """Fields of the configuration itself that do."""

    def tower_settings(self, config: Any) -> dict[str, Any]:
        vision = {name: getattr(config.vision_config, name) for name in self.vision_settings}
        return vision | {name: getattr(config, name) for name in self.feature_settings}

    def withheld(self, config: Any) -> Mapping[str, str]:
        return {}

    def deepstack_levels(self, config: Any) -> int:
        return 0

    takes_all_rows: ClassVar[str] = "tokcli doesn't take it apart"
    """Why nothing can be left out inside the tower, where ``in_tower`` isn't there."""

    def in_tower(self, model: Any, settings: Settings, grid: tuple[int, int]) -> TowerBlocks:
        raise ModelError(
            f"no method can work inside a {model.config.model_type} tower: {self.takes_all_rows}; "
            "choose a method that works on tokens"
        )

    def still_parts(self, config: Any, settings: Settings, height: int, width: int) -> tuple[Part, ...]:
        raise NotImplementedError("this family cuts no tiles")

    def encode_still(
        self, model: Any, pixels: npt.NDArray[np.uint8], settings: Settings, at_once: int, wanted: frozenset[str]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        raise NotImplementedError("this family cuts no tiles")

    def closing(self, model: Any) -> torch.Tensor | None:
        return None

    def placeholder(self, config: Any, kind: MediaKind) -> int:
        return int(config.image_token_id if kind == "image" else config.video_token_id)

    def visual_token(self, config: Any, kind: MediaKind) -> int:
        return self.placeholder(config, kind)

    def around(self, item: EncodedItem) -> tuple[str, str]:
        return "", ""

    def reading_order(self, item: EncodedItem) -> torch.Tensor | None:
        return None

    def further_inputs(self, ids: torch.Tensor, config: Any) -> dict[str, torch.Tensor]:
        return {}
