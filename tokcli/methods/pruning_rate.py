"""The budget as vLLM's users know it, a share to drop, beside those of every method."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import ClassVar

from pydantic import Field

from tokcli.methods.budget import SizeBudget, grid_tokens, rows_to_keep
from tokcli.methods.options import VariantOptions
from tokcli.types import VisualTokens


class PruningRateOptions(VariantOptions, SizeBudget):
    own_budgets: ClassVar[tuple[str, ...]] = ("pruning_rate",)
    default_budget: ClassVar[Mapping[str, float]] = {"pruning_rate": 0.7}

    pruning_rate: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Share to drop, as vLLM's --video-pruning-rate; 0.7 where no budget is given.",
    )


def rows_after_pruning(
    name: str, options: PruningRateOptions, visual: VisualTokens, *, floor: int, floor_is: str
) -> int:
    """As :func:`rows_to_keep`; with the official variant a share loses what the authors' floating point loses."""
    if options.variant == "official" and options.max_tokens is None:
        # The order of this expression is the authors': their rounding is part of what it reproduces.
        rate = options.pruning_rate if options.keep is None else 1 - options.keep
        return max(floor, int(grid_tokens(visual.views) * (1 - (rate or 0.0))))
    if options.pruning_rate is not None:
        share = float(1 - Decimal(repr(options.pruning_rate)))
        options = options.model_copy(update={"keep": share})
    return rows_to_keep(name, options, visual, floor=floor, floor_is=floor_is)
