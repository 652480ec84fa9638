"""VisPruner: of each picture the tokens that matter, and of the others those that differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from tokcli.errors import MethodError
from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Choose, StepSelection, shares_of
from tokcli.methods.importance import ImportanceOptions, importance_of, importance_signals
from tokcli.methods.tiles import Step
from tokcli.ops.diversity import all_cosines, unit_of
from tokcli.ops.selection import top_k
from tokcli.types import View, VisualTokens

DROPPED_AT_ONCE = 8
MOST_TOKENS = 8192
"""Of one picture: the cosines of all pairs then take 256 MiB."""


class VisPrunerOptions(ImportanceOptions, SizeBudget):
    # 64 of 576 tokens.
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.1111}

    important_share: float = Field(
        default=0.5, ge=0, le=1, description="Share of the budget for the tokens that matter most."
    )
    features: Literal["pre_projector", "tokens"] = Field(
        default="pre_projector",
        description="What tokens are compared by: the tower's features before the projector, or the tokens.",
    )


def _signals(options: VisPrunerOptions) -> tuple[str, ...]:
    return (*importance_signals(options), *(("pre_projector",) if options.features == "pre_projector" else ()))


@method(
    "vispruner",
    options=VisPrunerOptions,
    kind="select",
    count="exact",
    paper="ICCV 2025",
    streaming=True,
    needs_from=_signals,
    code="Theia-4869/VisPruner @ aefa01ad",
    licence="Apache-2.0",
    golden=("vispruner",),
)
def vispruner(options: VisPrunerOptions, views: tuple[View, ...]) -> Stream:
    """Keep of each picture the tokens that matter most, and of the others those that differ.

    Half of the budget goes by importance. The rest is what is left of the others after rounds in which they are split
    into every other one, and up to eight of the first half that are most like one of the second half are dropped; they
    begin in the order of importance. The paper ranks by the attention of [CLS]: ``importance=cls``. Each frame of a
    video, still, thumbnail and tile is ranked by itself and keeps the same share. Ties go to the earlier token. Without
    a budget it keeps 11.1%, 64 of 576 tokens.

    What the rounds keep hangs on the last bit of cosines: another machine may keep a few other tokens of that half. The
    authors' code stops with an error where an odd number is left, or where fewer than eight are to be kept; here the
    first half takes the odd one, and no more are dropped than there are.
    """

    def prepare(chunk: VisualTokens) -> Choose:
        importance = importance_of(chunk, options)
        features = chunk.signals["pre_projector"] if options.features == "pre_projector" else chunk.tokens

        def choose(step: Step, count: int) -> torch.Tensor:
            kept = []
            for tile, k in zip(step.tiles, shares_of(step, count)):
                if len(tile.rows) > MOST_TOKENS:
                    raise MethodError(
                        f"method 'vispruner' compares all tokens of a picture, up to {MOST_TOKENS}, and this one has "
                        f"{len(tile.rows)}; encode smaller pictures, or take 'divprune'"
                    )
                order = top_k(importance[tile.rows], len(tile.rows))
                important = int(k * options.important_share)
                others = order[important:]
                left = unlike(unit_of(features, tile.rows[others]), k - important)
                kept.append(tile.rows[torch.cat([order[:important], others[left]])])
            return torch.cat(kept)

        return choose

    return StepSelection("vispruner", options, views, prepare)


def unlike(unit: torch.Tensor, count: int) -> torch.Tensor:
    """The ``count`` of (R, D) unit vectors, in the order of importance, that are left by the rounds: int64 (count,)."""
    if count == 0:
        return torch.zeros(0, dtype=torch.int64)
    cosines = all_cosines(unit).numpy()
    rest: npt.NDArray[np.int64] = np.arange(len(unit))
    while len(rest) > count:
        left, right = rest[0::2], rest[1::2]
        likeness = cosines[np.ix_(left, right)].max(axis=1)
        order = np.argsort(-likeness, kind="stable")
        dropped = min(DROPPED_AT_ONCE, len(rest) - count, len(left))
        rest = np.concatenate([left[order[dropped:]], right])
    return torch.from_numpy(rest)
