"""AgilePruner: tokens that matter, each clearing a space around it that is wider in rich pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field

from tokcli.methods.base import Stats, Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Choose, StepSelection, shares_of
from tokcli.methods.importance import ImportanceOptions, importance_of, importance_signals
from tokcli.methods.tiles import Step
from tokcli.ops.complexity import effective_rank, entropy_nats
from tokcli.ops.diversity import Cosines, unit_of
from tokcli.ops.selection import top_k
from tokcli.types import View, VisualTokens

DISTANCE_PER_TOKEN = 0.01


class AgilePrunerOptions(ImportanceOptions, SizeBudget):
    # 64 of 576 tokens.
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.1111}

    usual_rank: float = Field(
        default=90.0, gt=0, description="Effective rank of a usual picture; ours, between two that the authors tell."
    )
    most_distance: float = Field(
        default=0.5, ge=0, le=2, description="Cosine distance that a token clears around it at most; ours."
    )


class Agile(StepSelection):
    """A selection that tells how rich each picture was."""

    def __init__(self, options: AgilePrunerOptions, views: tuple[View, ...]) -> None:
        super().__init__("agilepruner", options, views, self._prepared)
        self._options = options
        self._ranks: list[float] = []
        self._entropies: list[float] = []

    def finish(self) -> Stats:
        return {
            "effective_rank": np.array(self._ranks, dtype=np.float32),
            "attention_entropy": np.array(self._entropies, dtype=np.float32),
        }

    def _prepared(self, chunk: VisualTokens) -> Choose:
        importance, features = importance_of(chunk, self._options), chunk.signals["pre_projector"]

        def choose(step: Step, count: int) -> torch.Tensor:
            kept = []
            for tile, k in zip(step.tiles, shares_of(step, count)):
                rank = effective_rank(features[tile.rows])
                self._ranks.append(rank)
                self._entropies.append(entropy_nats(importance[tile.rows]))
                reach = DISTANCE_PER_TOKEN * rank / self._options.usual_rank
                unit = unit_of(features, tile.rows)
                order, _ = spaced_order(unit, importance[tile.rows], k, reach, self._options.most_distance)
                kept.append(tile.rows[order])
            return torch.cat(kept)

        return choose


@method(
    "agilepruner",
    options=AgilePrunerOptions,
    kind="select",
    count="exact",
    paper="ICLR 2026",
    streaming=True,
    needs={"pre_projector"},
    needs_from=importance_signals,
    code="cvsp-lab/AgilePruner, without code",
    licence="Apache-2.0, of the text",
    golden=("agilepruner_paper_derived",),
    experimental="the authors published no code and leave constants open: the golden cases are of an implementation "
    "from the project's page, with choices of ours",
)
def agilepruner(options: AgilePrunerOptions, views: tuple[View, ...]) -> Stream:
    """Keep tokens that matter, each clearing a space around it that is wider in rich pictures.

    Tokens are visited by importance; the paper takes the attention of [CLS], ``importance=cls``. The i-th that is kept
    takes out of the race all whose cosine distance to it, by the features before the projector, is below
    ``i * 0.01 * effective rank / usual_rank``, and ``most_distance`` at most. Where fewer than asked for are left, the
    most important of the others fill up. The effective rank is the exponential of the entropy of the singular values.
    Ties go to the earlier token. Without a budget it keeps 11.1%, 64 of 576 tokens.

    Each frame of a video, still, thumbnail and tile is a picture of its own and keeps the same share. Stored with the
    item, for every picture of which tokens were dropped: ``effective_rank`` and ``attention_entropy`` in nats.
    """
    return Agile(options, views)


def spaced_order(
    unit: torch.Tensor, importance: torch.Tensor, count: int, reach: float, most: float
) -> tuple[torch.Tensor, int]:
    """Tokens in the order in which they are kept, int64 (count,), and how many before the others fill up.

    ``unit``: float32 (n, D) unit vectors; ``importance``: float32 (n,). The i-th token clears
    ``min(most, i * reach)`` around it.
    """
    order = top_k(importance, len(importance))
    cosines = Cosines(unit[order])
    able = torch.ones(len(order), dtype=torch.bool)
    kept: list[int] = []
    while len(kept) < count and bool(able.any()):
        pick = int(able.numpy().argmax())
        kept.append(pick)
        likely = torch.where(able, -torch.arange(len(order), dtype=torch.float32), -torch.inf)
        able &= 1.0 - cosines.row(pick, likely) >= min(most, len(kept) * reach)
        able[pick] = False
    spaced = len(kept)
    others = torch.ones(len(order), dtype=torch.bool)
    others[kept] = False
    kept += torch.nonzero(others).flatten()[: count - spaced].tolist()
    return order[kept], spaced
