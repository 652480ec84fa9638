"""A cached item with all its tokens, as the vision tower gave it: what any method can be run on again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from tokcli.errors import CacheError
from tokcli.methods.deepstack import DEEPSTACK
from tokcli.methods.none import STRUCTURAL, stored_signals
from tokcli.ops.reducing import PROTECTED
from tokcli.types import EncodedItem, TokenSet, View, VisualTokens

ANNOUNCED = "announced_steps"
"""The stored array of the steps that each view was announced to have, where decoding ended early: streaming methods
plan with those."""

DAMAGE = ("planned_frames", "decoded_frames", "doubtful_frames")
"""Stored counts of a damaged item: the frames that the sampling takes of the whole file, those that came out as planned
and not flagged as damaged, and those of them that may be predicted from what was lost."""


def visual_tokens(item: EncodedItem) -> VisualTokens:
    """The tower's output for an item that was cached by the method ``none``, with the signals that it stored.

    A method gives the same tokens from it as in the run that encodes, where the cache's dtype is the tower's. One case
    differs: of a damaged file that ended early a run that streams plans with the steps that were announced; see
    ``announced_views``.

    Raises:
        CacheError: the item does not have all its tokens.
    """
    kept = item.kept
    if len(kept) != item.source_tokens or not bool((kept.mass == 1).all()):
        raise CacheError(
            f"{item.id} was cached with {len(kept)} of {item.source_tokens} tokens; methods need all of them: "
            "compress it with --method none"
        )
    return kept_tokens(item, len(kept))


def kept_tokens(item: EncodedItem, rows: int, dtype: torch.dtype | None = None) -> VisualTokens:
    """The rows that an item has, as the next method of a composition gets them.

    ``rows`` is the number of tokens that its first method got; ``dtype`` that of the tower, None for the cache's.
    """
    kept = item.kept
    structural = kept.stats.get(STRUCTURAL)
    flags = np.zeros(len(kept), dtype=np.bool_) if structural is None else structural.astype(np.bool_)
    signals = stored_signals(kept.stats, rows)
    if len(kept) != rows:
        signals = {name: values[kept.source] for name, values in signals.items()}
    if PROTECTED in kept.stats:
        signals[PROTECTED] = torch.from_numpy(kept.stats[PROTECTED].astype(np.bool_))
    if kept.deepstack is not None:
        signals[DEEPSTACK] = kept.deepstack if dtype is None else kept.deepstack.to(dtype)
    return VisualTokens(
        tokens=kept.tokens if dtype is None else kept.tokens.to(dtype),
        coords=kept.coords,
        views=item.views,
        structural=torch.from_numpy(flags),
        signals=signals,
        seconds_per_step=item.seconds_per_step,
    )


def with_announced(kept: TokenSet, announced: Sequence[View], encoded: Sequence[View]) -> TokenSet:
    """``kept`` with the announced steps among its stats, where they differ from those that came."""
    steps = [view.grid[0] for view in announced]
    if steps == [view.grid[0] for view in encoded]:
        return kept
    return replace(kept, stats={**kept.stats, ANNOUNCED: np.array(steps, dtype=np.int64)})


def with_damage(kept: TokenSet, planned: int, decoded: int, doubtful: int) -> TokenSet:
    """``kept`` with these counts of frames among its stats, where a planned one is missing or doubtful."""
    if decoded - doubtful >= planned:
        return kept
    counts = {name: np.array([count], np.int64) for name, count in zip(DAMAGE, (planned, decoded, doubtful))}
    return replace(kept, stats={**kept.stats, **counts})


def with_damage_of(kept: TokenSet, item: EncodedItem) -> TokenSet:
    """``kept`` with those counts of the item that it was made from."""
    counts = {name: item.kept.stats[name] for name in DAMAGE if name in item.kept.stats}
    return replace(kept, stats={**kept.stats, **counts}) if counts else kept


def announced_views(item: EncodedItem) -> tuple[View, ...]:
    """The views that a streaming method was, or would have been, opened with."""
    steps = item.kept.stats.get(ANNOUNCED)
    if steps is None:
        return item.views
    return tuple(View(view.kind, (int(count), *view.grid[1:])) for view, count in zip(item.views, steps))
