"""TS-LLaVA: tokens of all frames at even distances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.output import select
from tokcli.ops.selection import evenly_spread
from tokcli.types import TokenSet, VisualTokens

OFFICIAL_TOKENS = 2880


class TsLlavaOptions(SizeBudget):
    default_budget: ClassVar[Mapping[str, float]] = {"max_tokens": OFFICIAL_TOKENS}


@method(
    "ts_llava",
    options=TsLlavaOptions,
    kind="select",
    count="exact",
    paper="arXiv:2411.11066",
    code="tingyu215/TS-LLaVA @ 03cdeaee",
    licence="Apache-2.0",
    golden=("ts_llava_sampling", "ts_llava_thumbnail"),
)
def ts_llava(visual: VisualTokens, options: TsLlavaOptions) -> TokenSet:
    """Keep K of the N tokens of all frames, from the first to the last at even distances.

    Token ``round(i * (N - 1) / (K - 1))`` for i = 0 .. K-1, in float32 with halves to the even number as the authors;
    2880 where no budget is given, all where there are not so many (the authors' code stops with an error then).
    Looks at no content, and not at the grid: where the step divides the length of a row, the same columns are taken
    everywhere. Unlike ``uniform`` it always keeps the first and the last token.

    The half of the paper that works on tokens. The other half, a thumbnail made of a few frames, is a picture that
    the vision tower has to encode; what it would make of that cannot be had from the tokens of the frames.
    ``tokcli.ops.thumbnail`` composes the picture.
    """
    candidates = torch.nonzero(~visual.structural).flatten()
    keep = torch.zeros(len(visual), dtype=torch.bool)
    keep[candidates[evenly_spread(len(candidates), rows_to_keep("ts_llava", options, visual))]] = True
    return select(visual, keep)
