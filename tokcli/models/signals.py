"""Signals out of a vision tower: what one of its blocks attends to, and what its projector is given.

Fast attention gives no probabilities, and asking transformers for them turns it off in every block, or gives something
else. So the tower runs as always, what goes into ONE block's attention is noted on the way, and only what a signal
needs is computed from it again, a frame at a time: no array of heads x n x n is made, a frame's values do not depend on
the frames beside it, and the tokens are those of a run without signals, bit by bit.

All signals are float32 with a row for each token. docs/signals.md says what each is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch

QUERIES_AT_ONCE = 256

Call = tuple[tuple[Any, ...], Mapping[str, Any]]
"""Positional and named arguments of a module's call."""

_THREAD = threading.local()
_WIRED: WeakSet[torch.nn.Module] = WeakSet()
_WIRING = threading.Lock()


@contextmanager
def overhear(*modules: torch.nn.Module) -> Iterator[dict[torch.nn.Module, Call]]:
    """Note what each of ``modules`` is called with inside the context, by this thread alone."""
    with _WIRING:
        for module in modules:
            if module not in _WIRED:
                # For good: a hook that one thread takes away while another runs through the hooks breaks that one.
                module.register_forward_pre_hook(_note, with_kwargs=True)
                _WIRED.add(module)
    before, _THREAD.calls = getattr(_THREAD, "calls", None), {}
    try:
        yield _THREAD.calls
    finally:
        _THREAD.calls = before


def _note(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> None:
    # torch leaves ``kwargs`` out in a thread that passes while another one is wiring the module; it isn't listening.
    calls = getattr(_THREAD, "calls", None)
    if calls is not None:
        calls[module] = (args, kwargs or {})


def first_argument(call: Call) -> torch.Tensor:
    """The hidden states that a module was called with, however they were passed."""
    args, kwargs = call
    states: torch.Tensor = args[0] if args else kwargs["hidden_states"]
    return states


def attend(query: torch.Tensor, key: torch.Tensor, scale: float) -> torch.Tensor:
    """How much ``query`` (heads, q, d) looks at each ``key`` (heads, n, d), as float32 (n,): mean over both."""
    total = torch.zeros(key.shape[1], dtype=torch.float32, device=key.device)
    for run in query.float().split(QUERIES_AT_ONCE, dim=1):
        total += torch.softmax(run @ key.float().transpose(1, 2) * scale, dim=-1).sum(dim=(0, 1))
    return total / (query.shape[0] * query.shape[1])


def grid_signals(
    wanted: frozenset[str],
    attention: Any,
    call: Call,
    features: torch.Tensor,
    *,
    steps: int,
    unit: int,
    order: torch.Tensor | None,
) -> dict[str, torch.Tensor]:
    """Signals of a tower that takes patches with a grid and merges ``unit`` of them into a token.

    Args:
        attention: Of a block that attends to whole frames; has ``qkv``, ``num_heads`` and ``scaling``.
        call: What it was called with.
        features: (patches, C) before the merger.
        order: int64 (tokens of a frame,): which token stands where in the tower; None if all stand where they belong.
    """
    length = len(features) // steps
    signals = segment_signals(wanted, attention, call, features, lengths=[length] * steps, unit=unit)
    if order is None:
        return signals
    place = torch.argsort(order).to(features.device)
    return {name: values.unflatten(0, (steps, -1))[:, place].flatten(0, 1) for name, values in signals.items()}


def segment_signals(
    wanted: frozenset[str],
    attention: Any,
    call: Call,
    features: torch.Tensor,
    *,
    lengths: Sequence[int],
    unit: int,
) -> dict[str, torch.Tensor]:
    """The same where segments of ``lengths`` patches see themselves alone; rows in the tower's order."""
    states = first_argument(call)
    cos, sin = (table.float() for table in call[1]["position_embeddings"])
    segments: list[dict[str, torch.Tensor]] = []
    first = 0
    for length in lengths:
        rows = slice(first, first + length)
        first += length
        signals = {}
        if wanted & {"received_attention", "meanq", "keys"}:
            query, key = _heads(attention, states[rows])
            if "keys" in wanted:
                signals["keys"] = _by_token(key.transpose(0, 1).flatten(1), unit)
            query, key = _rotate(query, cos[rows], sin[rows]), _rotate(key, cos[rows], sin[rows])
            if "received_attention" in wanted:
                signals["received_attention"] = _by_token(attend(query, key, attention.scaling), unit)
            if "meanq" in wanted:
                by_token = key.unflatten(1, (-1, unit)).mean(dim=2)
                signals["meanq"] = attend(query.mean(dim=1, keepdim=True), by_token, attention.scaling)
        if "pre_projector" in wanted:
            signals["pre_projector"] = _by_token(features[rows].float(), unit)
        segments.append(signals)
    return {name: torch.cat([segment[name] for segment in segments]) for name in segments[0]}


def _heads(attention: Any, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys of a frame, float32 (heads, n, d), before their rotation."""
    query, key, _ = attention.qkv(states).float().view(len(states), 3, attention.num_heads, -1).permute(1, 2, 0, 3)
    return query, key


def _rotate(values: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions (n, d) on (heads, n, d)."""
    left, right = values.chunk(2, dim=-1)
    return values * cos + torch.cat([-right, left], dim=-1) * sin


def _by_token(values: torch.Tensor, unit: int) -> torch.Tensor:
    """(patches, ...) to (tokens, ...): the mean of the patches that make a token, which are neighbours."""
    return values.unflatten(0, (-1, unit)).mean(dim=1)


def window_order(rows: int, columns: int, side: int) -> torch.Tensor:
    """int64 (rows * columns,): a frame's tokens in the order of Qwen2.5-VL's tower, window by window.

    Args:
        side: Tokens along the side of a window; those at the right and at the bottom may be smaller.
    """
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    window = (y // side) * -(-columns // side) + x // side
    return torch.argsort(window.flatten(), stable=True)
