"""Baseline: tokens at random."""

from __future__ import annotations

import numpy as np
import torch

from tokcli.methods.base import method
from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.options import SeededOptions
from tokcli.methods.output import select
from tokcli.types import TokenSet, VisualTokens


class RandomOptions(SeededOptions, SizeBudget):
    budget_required = True


@method("random", options=RandomOptions, kind="select", count="exact")
def random(visual: VisualTokens, options: RandomOptions, generator: np.random.Generator) -> TokenSet:
    """Keep K tokens drawn without replacement.

    A baseline that looks at no content. The draw depends on the seed and the item's id alone
    (PCG64 of ``seed ^ crc32(id)``), not on the order of the items or on the worker.
    """
    candidates = torch.nonzero(~visual.structural).flatten()
    count = rows_to_keep("random", options, visual)
    chosen = generator.choice(candidates.numel(), count, replace=False)
    keep = torch.zeros(len(visual), dtype=torch.bool)
    keep[candidates[torch.from_numpy(np.sort(chosen))]] = True
    return select(visual, keep)
