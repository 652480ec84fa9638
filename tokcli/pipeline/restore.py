"""A cached item with all its tokens, as the vision tower gave it: what any method can be run on again."""

from __future__ import annotations

import numpy as np
import torch

from tokcli.errors import CacheError
from tokcli.methods.none import STRUCTURAL, stored_signals
from tokcli.types import EncodedItem, VisualTokens


def visual_tokens(item: EncodedItem) -> VisualTokens:
    """The tower's output for an item that was cached by the method ``none``, with the signals that it stored.

    A method gives the same tokens from it as in the run that encodes, where the cache's dtype is the tower's. One case
    differs: of a damaged file that ended early the cache knows the steps that were there, a run that streams plans
    with those that were announced.

    Raises:
        CacheError: the item does not have all its tokens.
    """
    kept = item.kept
    if len(kept) != item.source_tokens or not bool((kept.mass == 1).all()):
        raise CacheError(
            f"{item.id} was cached with {len(kept)} of {item.source_tokens} tokens; methods need all of them: "
            "compress it with --method none"
        )
    structural = kept.stats.get(STRUCTURAL)
    flags = np.zeros(len(kept), dtype=np.bool_) if structural is None else structural.astype(np.bool_)
    return VisualTokens(
        tokens=kept.tokens,
        coords=kept.coords,
        views=item.views,
        structural=torch.from_numpy(flags),
        signals=stored_signals(kept.stats, len(kept)),
        seconds_per_step=item.seconds_per_step,
    )
