"""What families share whose tower takes pictures of one size as planes: frames of a video, or tiles of a still.

Every picture is seen alone. What is done to its tokens after the tower, to make a still of its tiles or fewer tokens
of a frame, is done to its signals too, by the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from tokcli.errors import ModelError
from tokcli.models.base import CLS_SIGNALS, PROJECTOR_SIGNALS, SQUARE_SIGNALS, TOWER_SIGNALS
from tokcli.models.flat import FlatAdapter

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from tokcli.models.settings import Settings
    from tokcli.models.signals import Look, Source

    Encoded = tuple[torch.Tensor, dict[str, torch.Tensor]]
    """Tokens, and signals by name with as many rows."""


class PictureAdapter(FlatAdapter):
    """Base of the families."""

    signals = TOWER_SIGNALS | PROJECTOR_SIGNALS | {"patch_entropy"}
    tower: ClassVar[str] = "vision_tower"
    """The child of ``model.model`` that sees pictures."""
    projector: ClassVar[str] = "multi_modal_projector"
    """The child that makes tokens of what the tower gives."""

    def features(self, model: Any, planes: torch.Tensor) -> torch.Tensor:
        """Projected tokens (n, tokens, D) of normalised planes (n, 3, h, w)."""
        raise NotImplementedError

    def picture_size(self, model: Any) -> int:
        """Pixels along the side of a picture."""
        return int(model.config.vision_config.image_size)

    def token_side(self, config: Any) -> int:
        """Patches along the side of a token."""
        return 1

    def has_cls(self, config: Any) -> bool:
        """Whether the tower has a [CLS] before its patches."""
        return False

    def withheld(self, config: Any) -> Mapping[str, str]:
        if self.has_cls(config):
            return {}
        reason = "its features have no [CLS] before them (vision_feature_select_strategy is not 'default')"
        return dict.fromkeys(CLS_SIGNALS & self.signals, reason)

    def attentions(self, model: Any) -> Sequence[Any]:
        """Those of the tower's blocks, in order."""
        return [block.self_attn for block in getattr(model.model, self.tower).encoder.layers]

    def encode_pictures(
        self,
        model: Any,
        pixels: torch.Tensor,
        settings: Settings,
        wanted: frozenset[str],
        features: Callable[[Any, torch.Tensor], torch.Tensor] | None = None,
    ) -> Encoded:
        """Tokens (n, tokens, D) of pictures uint8 (n, h, w, 3); signals are float32 (n, tokens) or (n, tokens, C).

        Args:
            features: To be used in the place of the method of that name.
        """
        from tokcli.models.preprocess import square_signals, to_planes
        from tokcli.models.signals import listening

        with listening(wanted & self.signals - SQUARE_SIGNALS, partial(self.source, model)) as signals:
            tokens = (features or self.features)(model, to_planes(pixels, settings))
        if not self.of_squares:
            signals |= square_signals(wanted, pixels.cpu().numpy(), settings.patch_size * self.token_side(model.config))
        return tokens, {name: values.unflatten(0, (len(pixels), -1)) for name, values in signals.items()}

    def source(self, model: Any) -> Source:
        """Where signals come from."""
        from tokcli.models.signals import Source, plain_heads, squares

        attentions = self.attentions(model)
        projector = getattr(model.model, self.projector)
        others = {
            "pre_projector": (projector, self.before_projector(model)),
            "projector_sensitivity": (projector, self.sensitivity(model, projector)),
        }
        head = getattr(getattr(model.model, self.tower), "head", None)
        if head is not None:
            others["probe_attention"] = (head, self.before_head(model, head))
        return Source(
            attentions,
            feature_block(model.config, len(attentions)),
            range(len(attentions)),
            plain_heads,
            partial(squares, self.token_side(model.config)),
            others,
            first=int(self.has_cls(model.config)),
        )

    def before_head(self, model: Any, head: Any) -> Look:
        """From the call of SigLIP's pooling head to what its query sees (n * tokens,)."""
        import torch

        from tokcli.models.signals import first_argument, probe_attention, squares

        side = self.token_side(model.config)

        def look(call: tuple[tuple[Any, ...], Mapping[str, Any]]) -> torch.Tensor:
            return torch.cat([squares(side, picture) for picture in probe_attention(head, first_argument(call))])

        return look

    def before_projector(self, model: Any) -> Look:
        """From the projector's call to the means (n * tokens, C) of the patches that make its tokens."""
        import torch

        from tokcli.models.signals import first_argument, squares

        side = self.token_side(model.config)

        def look(call: tuple[tuple[Any, ...], Mapping[str, Any]]) -> torch.Tensor:
            return torch.cat([squares(side, patches.float()) for patches in first_argument(call)])

        return look

    def sensitivity(self, model: Any, projector: Any) -> Look:
        """From the projector's call to how much each token moves when all of its patches do, (n * tokens,)."""
        from tokcli.models.sensitivity import call_sensitivity, in_float32, rows_of_squares, squares_of_rows
        from tokcli.models.signals import first_argument

        side = self.token_side(model.config)

        def look(call: tuple[tuple[Any, ...], Mapping[str, Any]]) -> torch.Tensor:
            given, project = first_argument(call), in_float32(projector)
            if self.joins_in_projector:
                return call_sensitivity(
                    project, given, partial(rows_of_squares, side), partial(squares_of_rows, side, given.shape)
                )
            return call_sensitivity(
                project, given, lambda rows: rows.flatten(0, 1), lambda rows: rows.view(given.shape)
            )

        return look

    joins_in_projector: ClassVar[bool] = False
    """Whether it is the projector that makes one token of several patches."""

    def encode(self, model: Any, pixels: torch.Tensor, settings: Settings, wanted: frozenset[str]) -> Encoded:
        tokens, signals = self.encode_pictures(model, pixels, settings, wanted)
        return tokens.flatten(0, 1), {name: values.flatten(0, 1) for name, values in signals.items()}

    def cut(self, pixels: npt.NDArray[np.uint8], settings: Settings) -> npt.NDArray[np.uint8]:
        """Pictures uint8 (n, side, side, 3) of a still uint8 (1, h, w, 3)."""
        raise NotImplementedError("this family cuts no tiles")

    def stitch(
        self,
        model: Any,
        settings: Settings,
        size: tuple[int, int],
        values: torch.Tensor,
        separator: torch.Tensor | None,
    ) -> torch.Tensor:
        """Rows (N, C) of a still of ``size`` (height, width) from those of its pictures, (n, tokens, C).

        ``separator`` (C,) stands where the family puts newlines; None for the model's own.
        """
        raise NotImplementedError("this family cuts no tiles")

    def encode_still(
        self, model: Any, pixels: npt.NDArray[np.uint8], settings: Settings, at_once: int, wanted: frozenset[str]
    ) -> Encoded:
        import torch

        tiles = torch.from_numpy(self.cut(pixels, settings)).to(model.device)
        run = max(1, at_once // (self.picture_size(model) // settings.patch_size) ** 2)
        parts = [self.encode_pictures(model, part, settings, wanted) for part in tiles.split(run)]
        stitch = partial(self.stitch, model, settings, (pixels.shape[1], pixels.shape[2]))
        signals = {name: torch.cat([part[name] for _, part in parts]) for name in parts[0][1]}
        blank = {
            name: carried(values, lambda wide: stitch(wide, wide.new_zeros(wide.shape[-1])))
            for name, values in signals.items()
        }
        return stitch(torch.cat([tokens for tokens, _ in parts]), None), blank


def carried(values: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """What ``change`` makes of vectors (n, tokens, C), of a signal that may have one number (n, tokens) for each."""
    return change(values) if values.dim() > 2 else change(values[..., None])[..., 0]


def without_head(config: Any) -> dict[str, str]:
    """The signal that is withheld where a SigLIP tower has lost its pooling head, with the reason."""
    if config.vision_config.model_type == "siglip_vision_model" and config.vision_config.vision_use_head:
        return {}
    return {"probe_attention": "its tower was saved without SigLIP's pooling head (vision_use_head is not true)"}


def feature_block(config: Any, depth: int) -> int:
    """The block of ``depth`` whose output is the features.

    Raises:
        ModelError: The features are what goes into the first block.
    """
    layer = getattr(config, "vision_feature_layer", -1)
    index = int(layer - 1 if layer >= 0 else depth + layer)
    if index < 0:
        raise ModelError(f"vision_feature_layer {layer} comes out of no block, so there is no attention to look at")
    return index
