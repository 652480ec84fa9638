"""FoPru: the tokens, or the rows of tokens, that others look at most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Choose, StepSelection, best_of_each, shares_of
from tokcli.methods.importance import ImportanceOptions, importance_of, importance_signals
from tokcli.methods.tiles import Step, Tile
from tokcli.ops.selection import top_k
from tokcli.types import View, VisualTokens


class FopruOptions(ImportanceOptions, SizeBudget):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.25}

    strategy: Literal["rank", "row"] = Field(
        default="rank", description="Keep the best tokens ('rank'), or those of the rows with the best mean ('row')."
    )


@method(
    "fopru",
    options=FopruOptions,
    kind="select",
    count="exact",
    paper="arXiv:2411.14164",
    streaming=True,
    needs_from=importance_signals,
    golden=("fopru_paper_derived",),
    experimental="the authors published no code, and the definition follows the paper's summary: low confidence; the "
    "golden cases are of an implementation of this definition",
)
def fopru(options: FopruOptions, views: tuple[View, ...]) -> Stream:
    """Keep of each picture the tokens that get most attention, or its best rows.

    With ``strategy=row`` whole rows of the grid are ranked by their mean, ties to the upper row; the row in which the
    budget ends keeps its best tokens. Each frame of a video, still, thumbnail and tile is ranked by itself and keeps
    the same share. Ties go to the earlier token. Without a budget it keeps a quarter, which is our choice.
    """

    def prepare(chunk: VisualTokens) -> Choose:
        importance = importance_of(chunk, options)

        def choose(step: Step, count: int) -> torch.Tensor:
            shares = shares_of(step, count)
            if options.strategy == "rank":
                return best_of_each(step, importance, shares)
            return torch.cat(
                [tile.rows[by_rows(tile, importance[tile.rows], k)] for tile, k in zip(step.tiles, shares)]
            )

        return choose

    return StepSelection("fopru", options, views, prepare)


def by_rows(tile: Tile, importance: torch.Tensor, count: int) -> torch.Tensor:
    """Positions of the ``count`` tokens of a tile that stand in the best rows, int64: best rows first."""
    row = tile.places[:, 0]
    sums = torch.zeros(tile.grid[0], dtype=torch.float64).index_add_(0, row, importance.double())
    members = torch.bincount(row, minlength=tile.grid[0])
    means = torch.where(members > 0, sums / members.clamp_min(1), -torch.inf)
    rank = torch.empty_like(members)
    rank[top_k(means, len(means))] = torch.arange(len(means))
    best = top_k(importance, len(importance))
    return best[torch.argsort(rank[row[best]], stable=True)][:count]
