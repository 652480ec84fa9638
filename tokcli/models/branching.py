"""Many continuations of one prefix, computed without computing the prefix again.

The prefix (the *trunk*) goes through the model once. Everything that continues it goes into one row behind it, one
branch after another without padding, and a mask keeps the branches apart: a token sees the trunk, the tokens that its
own branch grew from, and its own branch up to itself. So a branch gets what it would get alone, to the rounding of the
kernels; the keys and values of the trunk are held once, however many branches there are; and a branch that has ended
simply stops growing. Layers that attend to a window count tokens as the branch would alone.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tokcli.errors import ModelError

_MASKED = {"full_attention", "sliding_attention"}
"""Kinds of layers that a mask is made for."""
STEM = -1
"""Branch number of the tokens that all branches of a group see."""


@dataclass(frozen=True)
class Tokens:
    """Tokens to append to a row."""

    ids: torch.Tensor
    """int64 (Q,)."""
    positions: torch.Tensor
    """int64 (..., Q)."""
    group: torch.Tensor
    """int64 (Q,), not negative: tokens of different groups never see each other."""
    branch: torch.Tensor
    """int64 (Q,): :data:`STEM`, or a branch that sees its group's stem and itself."""


@dataclass(frozen=True)
class Stem:
    """What one prompt adds to the trunk, and what is to follow it."""

    ids: torch.Tensor
    """int64 (S,), S at least 1."""
    positions: torch.Tensor
    """int64 (..., S)."""
    branches: Sequence[Sequence[int]] = ()
    """Ids of each continuation."""

    @property
    def length(self) -> int:
        """Tokens to compute: nobody asks what follows the last one of a branch."""
        return len(self.ids) + sum(max(len(branch) - 1, 0) for branch in self.branches)

    def after(self, first: int, count: int) -> torch.Tensor:
        """Positions of ``count`` tokens of text from the ``first``-th one behind the prompt on, int64 (..., count)."""
        return self.positions[..., -1:] + 1 + torch.arange(first, first + count)


class Trunk:
    """What all branches begin with, run through the model once."""

    def __init__(self, model: Any, ids: torch.Tensor, positions: torch.Tensor, **inputs: Any) -> None:
        """Run the trunk.

        Args:
            model: The causal model of transformers.
            ids: int64 (P,), P may be 0.
            positions: int64 (..., P).
            inputs: Further arguments of the model's ``forward``: the visual tokens.

        Raises:
            ModelError: The model's attention can't be masked token by token.
        """
        from transformers import DynamicCache

        check_attention(model)
        self.length = len(ids)
        self._forward = _Forward(model)
        self._cache = DynamicCache()
        if len(ids):
            self._forward(self._cache, ids, positions, torch.ones(1, len(ids), dtype=torch.long), 1, **inputs)

    def row(self) -> Row:
        """An empty row behind the trunk."""
        # The layers of a dynamic cache never write into their tensors, they put longer ones in their place. So copies
        # of the layers share the trunk's keys and values.
        cache = copy.copy(self._cache)
        cache.layers = [copy.copy(layer) for layer in self._cache.layers]
        return Row(self._forward, cache, self.length)


class _Forward:
    """Calls of a model with one row of tokens."""

    def __init__(self, model: Any) -> None:
        weight = model.get_input_embeddings().weight
        self._model = model
        self.device = weight.device
        self.dtype = weight.dtype
        self.window = _window(model)
        """Tokens that layers of sliding attention see; None where there are no such layers."""
        self._name = _cache_argument(type(model).forward)

    def __call__(
        self,
        cache: Any,
        ids: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | dict[str, torch.Tensor],
        keep: torch.Tensor | int,
        **inputs: Any,
    ) -> torch.Tensor:
        """Logits (R, V) of the tokens to ``keep``; ``cache`` grows by all of them."""
        device = self.device
        output = self._model(
            input_ids=ids[None].to(device),
            # (S,) or (3, S): the batch goes before the last dimension.
            position_ids=positions.unsqueeze(-2).to(device),
            attention_mask=mask.to(device) if isinstance(mask, torch.Tensor) else mask,
            logits_to_keep=keep.to(device) if isinstance(keep, torch.Tensor) else keep,
            use_cache=True,
            **{self._name: cache},
            **inputs,
        )
        logits: torch.Tensor = output.logits[0]
        return logits


class Row:
    """Branches behind a trunk, one after another."""

    def __init__(self, forward: _Forward, cache: Any, trunk: int) -> None:
        self._forward = forward
        self._cache = cache
        self._group = torch.full((trunk,), STEM, device=forward.device)
        self._branch = torch.full((trunk,), STEM, device=forward.device)
        self._place = torch.arange(trunk, device=forward.device)

    def grow(self, stems: Sequence[Stem]) -> tuple[torch.Tensor, list[list[list[int]]]]:
        """Append stems, each with its branches; a stem's group is its number.

        Returns:
            Logits (R, V), the first of each stem being what may follow it; and for each stem's each branch the rows of
            the logits that predict the branch's tokens. Stems without branches have one row each.
        """
        ids, positions = [], []
        group: list[int] = []
        branch: list[int] = []
        keep: list[int] = []
        places: list[list[list[int]]] = []
        for number, stem in enumerate(stems):
            ids.append(stem.ids)
            positions.append(stem.positions)
            branch += [STEM] * len(stem.ids)
            end = len(keep)
            keep.append(len(branch) - 1)
            places.append([])
            for name, continuation in enumerate(stem.branches):
                fed = continuation[:-1]
                places[-1].append([end, *range(len(keep), len(keep) + len(fed))][: len(continuation)])
                keep += range(len(branch), len(branch) + len(fed))
                branch += [name] * len(fed)
                if fed:
                    ids.append(torch.tensor(fed))
                    positions.append(stem.after(0, len(fed)))
            group += [number] * stem.length
        tokens = Tokens(torch.cat(ids), torch.cat(positions, dim=-1), torch.tensor(group), torch.tensor(branch))
        return self.extend(tokens, torch.tensor(keep)), places

    def extend(self, tokens: Tokens, keep: torch.Tensor) -> torch.Tensor:
        """Append tokens, in the order of their branches; stems come before their branches.

        Args:
            tokens: What to append.
            keep: int64 (R,), which of them need logits.

        Returns:
            Logits (R, V) on the model's device: for each, what may follow it.
        """
        device = self._forward.device
        group, branch = tokens.group.to(device), tokens.branch.to(device)
        start = len(self._group)
        self._group = torch.cat([self._group, group])
        self._branch = torch.cat([self._branch, branch])
        index = torch.arange(len(self._group), device=device)
        same = (self._branch == STEM) | (self._branch == branch[:, None])
        related = (self._group == STEM) | ((self._group == group[:, None]) & same)
        seen = related & (index <= index[start:, None])
        # Each token's number in the sequence that it would be part of alone.
        place = seen.sum(dim=1) - 1
        self._place = torch.cat([self._place, place])
        window = self._forward.window
        full = self._added(seen)
        mask: torch.Tensor | dict[str, torch.Tensor] = full
        if window is not None:
            near = place[:, None] - self._place < window
            mask = {"full_attention": full, "sliding_attention": self._added(seen & near)}
        return self._forward(self._cache, tokens.ids, tokens.positions, mask, keep)

    def _added(self, seen: torch.Tensor) -> torch.Tensor:
        """What is added to the scores, (1, 1, Q, S); float, because eager attention takes no other."""
        dtype = self._forward.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        return mask.masked_fill_(~seen, torch.finfo(dtype).min)[None, None]


def check_attention(model: Any) -> None:
    """Refuse models whose attention doesn't take a mask of our own.

    Raises:
        ModelError: Some layers are neither full attention nor a window of it, or the implementation takes no mask.
    """
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    others = sorted(kinds - (_MASKED if _window(model) else {"full_attention"}))
    if others:
        raise ModelError(
            "many prompts at once need full attention in all layers, "
            f"this {model.config.model_type} has {', '.join(others)}; use generate"
        )
    used = config._attn_implementation
    if used not in ("sdpa", "eager"):
        raise ModelError(f"many prompts at once need the attention sdpa or eager, not {used}; load the model with one")


def _window(model: Any) -> int | None:
    """The window of models that say of each layer whether it has one, and so take a mask for each of the two kinds."""
    config = model.config.get_text_config()
    window: int | None = getattr(config, "sliding_window", None)
    return window if window and "sliding_attention" in (getattr(config, "layer_types", None) or ()) else None


@functools.cache
def _cache_argument(forward: Any) -> str:
    """transformers 5.23 renamed it."""
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"
