"""What one method makes of one item whose tokens come chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from tokcli.cache.levels import joined, parted
from tokcli.cache.tensors import check_range
from tokcli.methods import Compressor
from tokcli.methods.none import STRUCTURAL
from tokcli.ops.reducing import PROTECTED
from tokcli.pipeline.spool import TokenSpool
from tokcli.types import TokenSet, View, VisualTokens


class Reduction:
    """Compresses as far as the method can while the item comes; memory holds what was kept, and a spool bounds that.

    A method that needs the whole item gets it at the end, from whoever collects it.
    """

    def __init__(
        self,
        compressor: Compressor,
        item_id: str,
        views: tuple[View, ...],
        folder: Path,
        tokens_dtype: torch.dtype | None,
    ) -> None:
        """``views`` are the planned ones; ``tokens_dtype`` is what tokens are stored as, None: as they come."""
        self.compressor, self.item_id, self.tokens_dtype = compressor, item_id, tokens_dtype
        self._stream = compressor.start(item_id, views) if compressor.streaming else None
        self._spool = TokenSpool(folder)
        self._rows: list[tuple[torch.Tensor, ...]] = []
        self._flags: list[dict[str, torch.Tensor]] = []
        self._assignments: list[torch.Tensor | None] = []
        self._seen = 0
        self._levels = 0

    @property
    def streaming(self) -> bool:
        return self._stream is not None

    def push(self, chunk: VisualTokens) -> None:
        """Take the next run of whole temporal steps; does nothing where the method needs the whole item."""
        if self._stream is None:
            return
        kept = self._stream.push(chunk)
        kept = stored(kept, self.tokens_dtype, self.item_id)
        self._levels = kept.levels
        self._spool.append(joined(kept.tokens, kept.deepstack))
        self._rows.append((kept.coords, kept.mass, kept.source))
        self._flags.append(flags_of(chunk, kept.source - self._seen))
        self._assignments.append(kept.assignment)
        self._seen += len(chunk)

    def finish(self, whole: Callable[[], VisualTokens]) -> TokenSet:
        """The item's tokens; ``whole`` gives all that was pushed. Keep the reduction open until they are written."""
        if self._stream is None:
            visual = whole()
            kept = self.compressor.compress(visual, self.item_id)
            return stored(with_flags(kept, flags_of(visual, kept.source)), self.tokens_dtype, self.item_id)
        coords, mass, source = (torch.cat(column) for column in zip(*self._rows))
        assignments = [part for part in self._assignments if part is not None]
        tokens, deepstack = parted(self._spool.tensor(), self._levels)
        kept = TokenSet(
            tokens=tokens,
            deepstack=deepstack,
            coords=coords,
            mass=mass,
            source=source,
            assignment=torch.cat(assignments) if len(assignments) == len(self._assignments) else None,
            stats=dict(self._stream.finish()),
        )
        return with_flags(kept, {name: torch.cat([flags[name] for flags in self._flags]) for name in self._flags[0]})

    def close(self) -> None:
        self._spool.close()


def stored(kept: TokenSet, tokens_dtype: torch.dtype | None, item_id: str) -> TokenSet:
    """``kept`` with tokens of the type that the cache gives back; None leaves them.

    Raises ``UsageError`` for finite numbers that the type cannot hold: converted, they would be infinite, and nobody
    could tell.
    """
    if tokens_dtype is None:
        return kept
    for tokens in (kept.tokens, kept.deepstack):
        if tokens is not None:
            check_range(tokens, str(tokens_dtype).removeprefix("torch."), item_id)
    deepstack = None if kept.deepstack is None else kept.deepstack.to(tokens_dtype)
    return replace(kept, tokens=kept.tokens.to(tokens_dtype), deepstack=deepstack)


def flags_of(visual: VisualTokens, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a later method, or a user, must know of some rows: bool (K,) each, by name, of int64 (K,) ``rows``."""
    flags = {STRUCTURAL: visual.structural[rows]}
    return flags | {PROTECTED: visual.signals[PROTECTED][rows]} if PROTECTED in visual.signals else flags


def with_flags(kept: TokenSet, flags: Mapping[str, torch.Tensor]) -> TokenSet:
    """``kept`` with bool (K,) ``flags`` among its stats, by name, each where it is set for any row."""
    stats = {name: values for name, values in kept.stats.items() if name not in (STRUCTURAL, PROTECTED)}
    return replace(kept, stats=stats | {name: values.numpy() for name, values in flags.items() if bool(values.any())})
