"""TextMonkey's token filter: tokens that no later token resembles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from tokcli.methods.base import Stream, method
from tokcli.methods.budget import SizeBudget
from tokcli.methods.by_step import Choose, StepSelection
from tokcli.methods.tiles import Step
from tokcli.ops.diversity import unit_of
from tokcli.ops.selection import top_k
from tokcli.types import View, VisualTokens

ROWS_AT_A_TIME = 288
COLUMNS_AT_A_TIME = 576


class TextMonkeyOptions(SizeBudget):
    default_budget: ClassVar[Mapping[str, float]] = {"keep": 0.5}


@method(
    "textmonkey",
    options=TextMonkeyOptions,
    kind="select",
    count="exact",
    paper="arXiv:2403.04473",
    streaming=True,
    code="Yuliang-Liu/Monkey @ 498e1d92",
    licence="MIT",
    golden=("textmonkey",),
)
def textmonkey(options: TextMonkeyOptions, views: tuple[View, ...]) -> Stream:
    """Keep the tokens that are least like any token after them.

    A token's redundancy is its largest cosine with a later token; the least redundant stay, and the last token always
    does. So of two equal tokens the earlier one goes. Needs nothing but the tokens. Among equally redundant ones the
    later stays. Without a budget it keeps half, as the authors' 512 of 1,024.

    All tokens of a still are compared, tile after tile; of a video each frame is a still. Left out: the trained
    resampler that the paper puts behind the filter.
    """

    def prepare(chunk: VisualTokens) -> Choose:
        def choose(step: Step, count: int) -> torch.Tensor:
            rows = torch.cat([tile.rows for tile in step.tiles])
            return rows[least_redundant(unit_of(chunk.tokens, rows), count)]

        return choose

    return StepSelection("textmonkey", options, views, prepare)


def least_redundant(unit: torch.Tensor, count: int) -> torch.Tensor:
    """The ``count`` rows with the smallest largest product with a later row: int64 (count,), the most redundant first.

    ``unit``: float32 (N, D) unit vectors; the last row counts as like nothing. Blocks of rows are worked on from the
    end, and a row that is already too redundant to be among the chosen is not compared any further.
    """
    total = len(unit)
    redundancy = torch.full((total,), torch.inf)
    redundancy[-1] = -torch.inf
    bound = torch.inf
    for start in range((total - 1) // ROWS_AT_A_TIME * ROWS_AT_A_TIME, -1, -ROWS_AT_A_TIME):
        stop = min(total, start + ROWS_AT_A_TIME)
        rows = torch.arange(start, min(stop, total - 1))
        own = unit[rows] @ unit[start:stop].T
        own.masked_fill_(torch.ones_like(own, dtype=torch.bool).tril(), -torch.inf)
        largest = own.amax(dim=1) if len(rows) else torch.zeros(0)
        for first in range(stop, total, COLUMNS_AT_A_TIME):
            able = largest <= bound
            rows, largest = rows[able], largest[able]
            products = unit[rows] @ unit[first : first + COLUMNS_AT_A_TIME].T
            largest = torch.maximum(largest, products.amax(dim=1))
        redundancy[rows] = largest
        if total - start > count:
            bound = min(bound, float(redundancy[start:].kthvalue(count).values))
    # Sorted from the most redundant, the last of them: among equals those with the highest index.
    return top_k(redundancy, total)[total - count :]
