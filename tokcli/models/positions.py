"""Positions of a prompt's tokens for rotary embeddings in three dimensions (M-RoPE), by named scheme.

A scheme gives every token of the FULL prompt its (t, h, w); what a method dropped is taken out afterwards, so the
tokens that stay keep the places they had. Text has t = h = w. The schemes agree inside a visual block and differ in
where the text after it goes on:

``original``
    One after the largest of all the block's coordinates: the rule of the Qwen2-VL authors' own code (arXiv:2409.12191,
    section 2.1), under which the models were trained and published figures were made.
``hf``
    ``max(rows, columns)`` after the block's start, however long it lasts: transformers 5's ``get_rope_index``. For
    equality with a native run; after a long video the question's positions lie inside those of the video.
``compact``
    The kept tokens in a row, as if they were text: what serving engines that know no M-RoPE do.

Seconds between temporal steps enter through ``Block.interval``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tokcli.errors import ModelError
from tokcli.models.base import SCHEMES


@dataclass(frozen=True)
class Text:
    """A run of text tokens."""

    length: int


@dataclass(frozen=True)
class Block:
    """A run of visual tokens that fills a grid, in (t, y, x) order."""

    grid: tuple[int, int, int]
    """(T', H', W') tokens, after the tower's merging."""
    interval: float = 1.0
    """Positions between neighbouring temporal steps, not rounded."""

    @property
    def length(self) -> int:
        t, h, w = self.grid
        return t * h * w


def check_scheme(scheme: str, known: Sequence[str] = SCHEMES) -> None:
    """Raise ``ModelError`` unless ``scheme`` is one of ``known``."""
    if scheme not in known:
        raise ModelError(f"unknown position scheme {scheme!r}; known: {', '.join(known)}")


def block_positions(block: Block) -> torch.Tensor:
    """Positions of a block's tokens relative to its start, int64 (3, T' * H' * W')."""
    t, h, w = block.grid
    # float32 and truncation, as in the models' own code: float64 would round some steps of odd frame rates differently.
    seconds = (torch.arange(t) * torch.tensor(block.interval, dtype=torch.float32)).long()
    return torch.stack(torch.meshgrid(seconds, torch.arange(h), torch.arange(w), indexing="ij")).reshape(3, -1)


def mrope_positions(parts: Sequence[Text | Block], scheme: str) -> torch.Tensor:
    """Positions of the full prompt.

    Args:
        parts: What the prompt consists of, in order.
        scheme: "original" or "hf"; "compact" needs the kept rows and is :func:`compact_positions`.

    Returns:
        int64 (3, S): t, h, w of every token.

    Raises:
        ModelError: The scheme is unknown.
    """
    check_scheme(scheme, ("original", "hf"))
    rows, start = [torch.zeros(3, 0, dtype=torch.long)], 0
    for part in parts:
        if isinstance(part, Text):
            rows.append(torch.arange(part.length).expand(3, -1) + start)
            start += part.length
        else:
            relative = block_positions(part)
            rows.append(relative + start)
            start += max(part.grid[1:]) if scheme == "hf" else int(relative.max()) + 1
    return torch.cat(rows, dim=1)


def compact_positions(length: int) -> torch.Tensor:
    """Running positions 0 .. length-1 in all three rows, int64 (3, length)."""
    return torch.arange(length).expand(3, -1)


def kept_positions(parts: Sequence[Text | Block], kept: torch.Tensor, scheme: str) -> torch.Tensor:
    """Positions of the tokens that are left.

    Args:
        parts: What the FULL prompt consists of.
        kept: int64 (K,), indices into the full prompt, ascending.
        scheme: One of :data:`~tokcli.models.base.SCHEMES`.

    Returns:
        int64 (3, K).

    Raises:
        ModelError: The scheme is unknown.
    """
    check_scheme(scheme)
    if scheme == "compact":
        return compact_positions(len(kept))
    return mrope_positions(parts, scheme)[:, kept]
