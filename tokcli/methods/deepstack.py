"""What methods needn't know: tokens of some families have DeepStack levels (arXiv:2406.04334) that stay with them."""

from __future__ import annotations

from dataclasses import replace

from tokcli.ops.pooling import group_means
from tokcli.types import TokenSet, VisualTokens

DEEPSTACK = "deepstack"
"""The signal that holds the levels, (N, L, D)."""


def with_deepstack(kept: TokenSet, visual: VisualTokens) -> TokenSet:
    """``kept``, which was made of ``visual``, with the levels of its rows where there are any.

    A selected token keeps its own. One that was merged gets the mean over all rows that went into it, whatever the
    method made of the tokens themselves: its own weights are for tokens, and no paper says what levels should get.
    """
    levels = visual.signals.get(DEEPSTACK)
    if levels is None:
        return kept
    if kept.assignment is None:
        everything = len(kept) == len(visual)
        return replace(kept, deepstack=levels if everything else levels[kept.source])
    means, _ = group_means(levels.flatten(1), kept.assignment.long(), len(kept))
    return replace(kept, deepstack=means.unflatten(1, tuple(levels.shape[1:])))
