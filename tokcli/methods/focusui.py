"""FocusUI: of a screenshot the tokens in small regions, with marks where others were left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from tokcli.methods.base import Stats, Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Choose, StepSelection
from tokcli.methods.tiles import Step
from tokcli.methods.ui_graph import SIGNAL, regions_of
from tokcli.ops.selection import top_k
from tokcli.types import TokenSet, View, VisualTokens

Weight = Literal["log", "inverse", "sqrt"]


class FocusUiOptions(SizeBudget):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.5}

    weight: Weight = Field(
        default="log",
        description="Score of a token in a region of n: 'log' 1 / max(1, ln(n + 1)), 'inverse' 1 / n, 'sqrt' "
        "1 / sqrt(n).",
    )
    pixel_distance: float = Field(
        default=2.0, ge=0, description="Distance of neighbouring tokens' pixels below which they are one region."
    )


class Marked(StepSelection):
    """A selection that tells where runs of dropped tokens end."""

    def __init__(self, options: FocusUiOptions, views: tuple[View, ...]) -> None:
        super().__init__("focusui", options, views, self._scored)
        self._options = options
        self._grids = np.array([view.grid for view in views]).reshape(-1, 3)
        self._firsts = np.cumsum([0, *self._grids.prod(axis=1)])[:-1]
        self._marks: list[npt.NDArray[np.int64]] = []
        self._pending: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def push(self, chunk: VisualTokens) -> TokenSet:
        kept = super().push(chunk)
        mask = torch.zeros(len(chunk), dtype=torch.bool)
        mask[kept.source] = True
        if len(chunk):
            # A run may go on in this chunk; its mark is where it ends.
            if bool(mask[0]):
                self._marks.append(self._pending)
            ends = run_ends(mask)
            places = self._places(chunk)[ends.numpy()]
            goes_on = not bool(mask[-1])
            self._marks.append(places[: len(places) - goes_on])
            self._pending = places[len(places) - goes_on :]
        return kept

    def finish(self) -> Stats:
        return {"marker_place": np.concatenate([*self._marks, self._pending])}

    def _places(self, chunk: VisualTokens) -> npt.NDArray[np.int64]:
        view, step, y, x = chunk.coords.numpy().astype(np.int64).T
        _, height, width = self._grids[view].T
        return np.asarray(self._firsts[view] + (step * height + y) * width + x)

    def _scored(self, chunk: VisualTokens) -> Choose:
        scores = torch.zeros(len(chunk))
        for regions in regions_of(chunk, self._options.pixel_distance, (1.0, 1.0, 1.0)):
            scores[regions.rows] = region_scores(regions.labels, self._options.weight)

        def choose(step: Step, count: int) -> torch.Tensor:
            rows = step.rows
            return rows[top_k(scores[rows], count)]

        return choose


@method(
    "focusui",
    options=FocusUiOptions,
    kind="select",
    count="exact",
    streaming=True,
    paper="showlab/FocusUI, 2026",
    needs={SIGNAL},
    code="showlab/FocusUI @ 894ddcb4",
    licence="none",
    golden=("focusui_pospad",),
)
def focusui(options: FocusUiOptions, views: tuple[View, ...]) -> Stream:
    """Keep the tokens of a screenshot that stand in small regions of like pixels.

    Neighbouring tokens belong to one region if their pixels in [0, 1] are closer than ``pixel_distance``; the larger a
    token's region, the lower its score. All tokens of a still compete, and those of each frame of a video. Ties go to
    the earlier token, where the authors draw lots. Without a budget it keeps half. Left out: the trained scorer that is
    guided by the question.

    The authors put a learned vector at the last place of every run of dropped tokens, so that the language model knows
    that something was there. No model without it can use that; where such runs end is stored with the item as
    ``marker_place``, counted through the full grids of all views in order.
    """
    return Marked(options, views)


def region_scores(labels: torch.Tensor, weight: Weight) -> torch.Tensor:
    """The score of each token by the size of its region: float32 (N,), of int64 (N,) regions numbered from 0."""
    sizes = torch.bincount(labels)[labels].double()
    scores = {"log": 1 / (sizes + 1).log().clamp_min(1), "inverse": 1 / sizes, "sqrt": 1 / sizes.sqrt()}
    return scores[weight].float()


def run_ends(kept: torch.Tensor) -> torch.Tensor:
    """The last position of each run of tokens that are not kept, int64 (runs,), of bool (N,)."""
    after = torch.cat([kept[1:], torch.ones(1, dtype=torch.bool)])
    return torch.nonzero(~kept & after).flatten()
