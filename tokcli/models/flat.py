"""What families share whose language model takes positions in one dimension.

Positions number the tokens of the full prompt. A kept token keeps its number, and text goes on after the full block:
``original`` and ``hf`` are the same here, ``compact`` numbers what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tokcli.models.base import SCHEMES, Part

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    from tokcli.models.positions import Block, Text
    from tokcli.models.settings import Settings
    from tokcli.types import EncodedItem, MediaKind


class FlatAdapter:
    """Base of adapters: one run of positions, no tiles, no levels, no separators."""

    language_modules = ("language_model",)
    system_as_parts = True
    position_schemes = SCHEMES
    signals: frozenset[str] = frozenset()

    def deepstack_levels(self, config: Any) -> int:
        return 0

    def still_parts(self, config: Any, settings: Settings, height: int, width: int) -> tuple[Part, ...]:
        raise NotImplementedError("this family cuts no tiles")

    def encode_still(self, model: Any, pixels: npt.NDArray[np.uint8], settings: Settings, at_once: int) -> torch.Tensor:
        raise NotImplementedError("this family cuts no tiles")

    def placeholder(self, config: Any, kind: MediaKind) -> int:
        raise NotImplementedError

    def visual_token(self, config: Any, kind: MediaKind) -> int:
        return self.placeholder(config, kind)

    def closing(self, model: Any) -> torch.Tensor | None:
        return None

    def positions(self, parts: Sequence[Text | Block], kept: torch.Tensor, scheme: str) -> torch.Tensor:
        """int64 (K,)."""
        import torch

        from tokcli.models.positions import check_scheme

        check_scheme(scheme, self.position_schemes)
        return torch.arange(len(kept)) if scheme == "compact" else kept


def kept_tokens(item: EncodedItem, like: torch.Tensor) -> torch.Tensor:
    """An item's tokens in the dtype and on the device of ``like``."""
    return item.kept.tokens.to(device=like.device, dtype=like.dtype)
