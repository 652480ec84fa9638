"""Baseline: smaller frames into the vision tower."""

from __future__ import annotations

from pydantic import Field

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import Budgeted
from tokcli.methods.none import KeepAll
from tokcli.types import View


class DownsampleOptions(Budgeted):
    budget_required = True
    keep: float | None = Field(default=None, gt=0, le=1, description="Area of the frames, as a share of their own.")


@method(
    "downsample",
    options=DownsampleOptions,
    kind="select",
    count="by the encoder",
    streaming=True,
    pixel_scale=lambda options: options.keep,
    where=lambda options: "tokens" if options.keep == 1 else "pixels",
)
def downsample(options: DownsampleOptions, views: tuple[View, ...]) -> Stream:
    """Shrink every frame before the vision tower, to ``keep`` of its area, and keep all tokens of that.

    The baseline that a pruning method has to beat at the same number of tokens: it saves the tower's time too. The
    number of tokens follows from the tower's rules for sizes, so it is near ``keep`` and not exact.
    """
    return KeepAll()
