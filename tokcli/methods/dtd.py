"""DTD, Differential Token Drop: drop what looks like the step before."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator

from tokcli.methods.base import Stats, Stream, method
from tokcli.methods.budget import ShareBudget, grid_tokens, share_count
from tokcli.methods.layout import Block, blocks
from tokcli.methods.options import VariantOptions
from tokcli.methods.output import select
from tokcli.ops.selection import top_k_mask
from tokcli.ops.similarity import cosine
from tokcli.types import TokenSet, View, VisualTokens

DEFAULT_THRESHOLD = {"feature": 0.5, "pixel": 0.1}
OFFICIAL_SECONDS_PER_STEP = 2.0


class DtdOptions(VariantOptions, ShareBudget):
    criterion: Literal["feature", "pixel"] = Field(
        default="feature",
        description="What is compared: the tokens, or the pixels under them (signal pixel_change).",
    )
    threshold: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        description="Drop above this cosine (feature, 0.5 by default; lower drops more) or below this mean change of "
        "the pixels in 0..1 (pixel, 0.1; higher drops more); with absolute=false the share to drop of every step.",
    )
    absolute: bool = Field(default=True, description="Whether threshold is a score or, if false, a share of each step.")
    reference: Literal["previous", "kept"] = Field(
        default="previous",
        description="Compare with the step before, or with the last token that was kept at the place: the latter "
        "keeps a token again when a slow drift has added up.",
    )
    trigger_share: float = Field(
        default=0.1, gt=0, le=1, description="Share of the steps, those with the lowest drop ratios, that are triggers."
    )
    trigger_below: float | None = Field(
        default=None, ge=0, le=1, description="Take all steps with a drop ratio below this as triggers instead."
    )

    @model_validator(mode="before")
    @classmethod
    def _default_threshold(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("keep") is not None or values.get("threshold") is not None:
            return values
        return {**values, "threshold": DEFAULT_THRESHOLD.get(values.get("criterion", "feature"))}

    @model_validator(mode="after")
    def _ranges(self) -> DtdOptions:
        if self.threshold is not None and self.threshold < 0 and (self.criterion == "pixel" or not self.absolute):
            raise ValueError(f"threshold={self.threshold:g} is not allowed here; it must be from 0 to 1")
        if self.reference == "kept" and self.criterion == "pixel":
            raise ValueError(
                "reference='kept' needs criterion='feature', because pixel_change is about the step before"
            )
        return self


class DifferentialTokenDrop:
    """State over one item: what each place is compared with, the share spent so far, and the drop ratios."""

    def __init__(self, options: DtdOptions, views: tuple[View, ...]) -> None:
        self._options = options
        self._share = None if options.keep is None else _Share(options.keep, views)
        self._references: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._ratios: list[float] = []
        self._steps: list[int] = []
        self._seconds_per_step: float | None = None

    def push(self, chunk: VisualTokens) -> TokenSet:
        self._seconds_per_step = chunk.seconds_per_step
        keep = torch.zeros(len(chunk), dtype=torch.bool)
        for block in blocks(chunk):
            keep[block.rows[self._kept_places(block, chunk)]] = True
        return select(chunk, keep)

    def _kept_places(self, block: Block, chunk: VisualTokens) -> torch.Tensor:
        """bool (T, P), false where a place has no row."""
        frames, present = block.gather(chunk.tokens), block.present
        changes = block.gather(chunk.signals["pixel_change"]) if self._options.criterion == "pixel" else None
        kept = present.clone()
        tokens, known = self._references.get(block.view, (None, None))
        for index, step in enumerate(block.steps.tolist()):
            if tokens is not None and known is not None:
                redundancy = -changes[index] if changes is not None else cosine(tokens, frames[index])
                # A method before this one may have left gaps: what can't be compared is not redundant.
                redundancy = torch.where(known, redundancy, -1.0)
                kept[index] &= ~self._redundant(redundancy, present[index], block.view, step)
                self._record(step, present[index], kept[index])
            if tokens is None or known is None or self._options.reference == "previous":
                tokens, known = frames[index], present[index]
            else:
                tokens = torch.where(kept[index].unsqueeze(1), frames[index], tokens)
                known = known | kept[index]
        assert tokens is not None and known is not None
        # A copy, so that the state holds one step and not the chunk that the step is a part of.
        self._references[block.view] = (tokens.clone(), known)
        return kept

    def _redundant(self, redundancy: torch.Tensor, present: torch.Tensor, view: int, step: int) -> torch.Tensor:
        """bool (P,): which tokens of a step to drop."""
        options = self._options
        if options.threshold is not None and options.absolute:
            return redundancy > (options.threshold if options.criterion == "feature" else -options.threshold)
        count = int(present.sum())
        if self._share is not None:
            dropped = count - self._share.spend(view, step, count)
        else:
            dropped = int(count * (options.threshold or 0.0))
        return top_k_mask(redundancy.masked_fill(~present, -torch.inf), dropped)

    def _record(self, step: int, present: torch.Tensor, kept: torch.Tensor) -> None:
        self._steps.append(step)
        self._ratios.append(1.0 - int(kept.sum()) / int(present.sum()))

    def finish(self) -> Stats:
        ratios = np.array(self._ratios, dtype=np.float64)
        stats: dict[str, npt.NDArray[Any]] = {"drop_ratio": ratios.astype(np.float32)}
        if self._options.variant == "official":
            seconds = (np.arange(len(ratios)) + 1) * OFFICIAL_SECONDS_PER_STEP
        elif self._seconds_per_step is not None:
            seconds = np.array(self._steps, dtype=np.float64) * self._seconds_per_step
        else:
            return stats
        triggers = trigger_steps(ratios, self._options.trigger_share)
        if self._options.trigger_below is not None:
            triggers = np.flatnonzero(ratios < self._options.trigger_below)
        elif self._options.variant == "fixed":
            triggers = triggers[ratios[triggers] < 1.0]
        return {**stats, "trigger_seconds": seconds[triggers]}


class _Share:
    """Spends ``keep`` evenly over time: what may be kept up to each step is fixed by the planned grid alone.

    The first step of each view is kept whole whatever it costs; the rest of the budget is spread over the later
    tokens. So the total is exact when the item has the planned length, and the share holds up to any moment of it.
    """

    def __init__(self, keep: float, views: tuple[View, ...]) -> None:
        later = [(view.grid[0] - 1) * view.grid[1] * view.grid[2] for view in views]
        self._places = [view.grid[1] * view.grid[2] for view in views]
        self._before_view = [sum(later[:index]) for index in range(len(later))]
        self._later = sum(later)
        self._budget = max(0, share_count(keep, grid_tokens(views)) - sum(self._places))
        self._spent = 0

    def spend(self, view: int, step: int, available: int) -> int:
        """How many tokens of this step may be kept; counts them as spent."""
        passed = self._before_view[view] + step * self._places[view]
        allowed = min(available, self._budget * passed // self._later - self._spent)
        self._spent += allowed
        return allowed


def trigger_steps(ratios: npt.NDArray[np.float64], share: float = 0.1) -> npt.NDArray[np.int64]:
    """Positions of the ``ceil(share * n)`` lowest of (n,) drop ratios, ascending; ties to the earlier one.

    The proactive response of TimeChat-Online: a scene that changes drops few tokens.
    """
    lowest = np.argsort(ratios, kind="stable")[: math.ceil(share * len(ratios))]
    return np.sort(lowest)


@method(
    "dtd",
    options=DtdOptions,
    kind="select",
    count="by content",
    paper="arXiv:2504.17343",
    streaming=True,
    needs_if={"pixel_change": lambda options: options.criterion == "pixel"},
    code="yaolinli/TimeChat-Online @ 25a15783",
    licence="BSD-3-Clause file; the README says research use only",
    golden=("dtd_feature", "dtd_pixel", "dtd_trigger"),
    variants={
        "official": "trigger times assume 2 seconds a step, and something triggers even if nothing ever changes",
        "fixed": "trigger times use the real seconds of a step, and a step that was dropped whole is no trigger",
    },
)
def dtd(options: DtdOptions, views: tuple[View, ...]) -> Stream:
    """Drop every token that looks like the one at the same place in the step before.

    The number of tokens follows the content: a still scene costs one step, a cut costs a whole one. The first step of
    each view is kept whole, and so is a view with a single step (an image, a thumbnail, a crop), so the least that is
    kept is 1/T of the tokens. With a threshold the reference is the complete step before, dropped tokens included.

    With ``keep`` there is no threshold: every step drops its most redundant tokens, as many as make the total come out
    at that share of the planned length. The budget is spread evenly over time, so ``keep`` knows no cuts; a threshold
    does. Steps are told apart by their number in the grid (the authors' code goes by temporal position ids, which
    coincide at high frame rates, and compares a second video with the end of the first).

    Stores for every item ``drop_ratio``, the share dropped of each step after the first, and ``trigger_seconds``, when
    the scene changed most: the steps with the lowest ratios.
    """
    return DifferentialTokenDrop(options, views)
