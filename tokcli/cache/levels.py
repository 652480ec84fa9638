"""DeepStack levels beside tokens: stored, a token and its levels are one row.

A row that is wider than the language model can't be taken for a token by a reader that knows nothing of levels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokcli.errors import UsageError
from tokcli.types import TokenSet

if TYPE_CHECKING:
    import torch

    from tokcli.cache.manifest import Manifest


def joined(tokens: torch.Tensor, deepstack: torch.Tensor | None) -> torch.Tensor:
    """Rows (n, (1 + L) * D): each of ``tokens`` (n, D), then its ``deepstack`` (L, D) level by level."""
    import torch

    return tokens if deepstack is None else torch.cat([tokens, deepstack.flatten(1)], dim=1)


def parted(rows: torch.Tensor, levels: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Tokens (n, D) and levels (n, L, D) of joined rows, as views of them; None for no levels."""
    if not levels:
        return rows, None
    width = rows.shape[1] // (1 + levels)
    return rows[:, :width], rows[:, width:].unflatten(1, (levels, width))


def levels_of(manifest: Manifest) -> int:
    """Levels that every item of a cache has."""
    return int(manifest.configuration.get("model", {}).get("deepstack_levels", 0))


def check_levels(kept: TokenSet, levels: int, item_id: str) -> None:
    """Raise ``UsageError`` unless the tokens have that many levels."""
    if kept.levels != levels:
        raise UsageError(f"{item_id} has {kept.levels} DeepStack levels, this cache is for {levels}; use a new cache")
