"""Baseline: tokens at even distances."""

from __future__ import annotations

import torch

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.output import select
from tokcli.ops.selection import evenly_spaced
from tokcli.types import TokenSet, VisualTokens


class UniformOptions(SizeBudget):
    budget_required = True


@method("uniform", options=UniformOptions, kind="select", count="exact")
def uniform(visual: VisualTokens, options: UniformOptions) -> TokenSet:
    """Keep K of N tokens at even distances in (view, time, row, column) order.

    A baseline that looks at no content: token ``floor(i * N / K)`` for i = 0 .. K-1.
    """
    candidates = torch.nonzero(~visual.structural).flatten()
    chosen = evenly_spaced(candidates.numel(), rows_to_keep("uniform", options, visual))
    keep = torch.zeros(len(visual), dtype=torch.bool)
    keep[candidates[chosen]] = True
    return select(visual, keep)
