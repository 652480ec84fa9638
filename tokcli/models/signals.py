"""Signals out of a vision tower: what its blocks attend to, and what its projector is given.

Fast attention gives no probabilities, and asking transformers for them turns it off in every block, or gives something
else. So the tower runs as always, what goes into a block's attention is overheard on the way, and only what a signal
needs is computed from it again, a frame at a time: no array of heads x n x n is made, a frame's values do not depend on
the frames beside it, and the tokens are those of a run without signals, bit by bit.

All signals are float32 with a row for each token. docs/signals.md says what each is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
import torch.nn.functional as F

from tokcli.ops.hubs import SETTINGS

QUERIES_AT_ONCE = 256
HUBS = tuple(setting.threshold for setting in SETTINGS)
"""How many times the mean a patch has to receive to be a hub, for each column of ``hub_attention``."""

Call = tuple[tuple[Any, ...], Mapping[str, Any]]
"""Positional and named arguments of a module's call."""
Look = Callable[[Call], Any]
"""What is noted of a call."""
Signals = dict[str, torch.Tensor]

_OF_LAYERS = {"received_layers": "received_attention", "cls_attention_layers": "cls_attention"}
"""Signals with a column for each block, and what is in it."""
_OF_LAST = frozenset({"cls_logits"})
_OF_BLOCK = frozenset({"received_attention", "meanq", "hub_attention", "cls_attention", "keys", "head_mean_keys"})

_THREAD = threading.local()
_WIRED: WeakSet[torch.nn.Module] = WeakSet()
_WIRING = threading.Lock()


@contextmanager
def overhear(looks: Mapping[torch.nn.Module, Look]) -> Iterator[dict[torch.nn.Module, Any]]:
    """Note what each look gives for the calls of its module inside the context, by this thread alone."""
    with _WIRING:
        for module in looks:
            if module not in _WIRED:
                # For good: a hook that one thread takes away while another runs through the hooks breaks that one.
                module.register_forward_pre_hook(_note, with_kwargs=True)
                _WIRED.add(module)
    before = getattr(_THREAD, "listening", None)
    notes: dict[torch.nn.Module, Any] = {}
    _THREAD.listening = (looks, notes)
    try:
        yield notes
    finally:
        _THREAD.listening = before


def _note(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> None:
    # torch leaves ``kwargs`` out in a thread that passes while another one is wiring the module; it isn't listening.
    listening = getattr(_THREAD, "listening", None)
    if listening is not None and module in listening[0]:
        looks, notes = listening
        # What a look does with the tower itself isn't overheard.
        _THREAD.listening = None
        try:
            notes[module] = looks[module]((args, kwargs or {}))
        finally:
            _THREAD.listening = listening


def first_argument(call: Call) -> torch.Tensor:
    """The hidden states that a module was called with, however they were passed."""
    args, kwargs = call
    states: torch.Tensor = args[0] if args else kwargs["hidden_states"]
    return states


@dataclass(frozen=True)
class Heads:
    """Queries and keys of a frame in one block, float32 (heads, n, d)."""

    query: torch.Tensor
    """As the product takes them: after their rotation, if there is one."""
    key: torch.Tensor
    plain: torch.Tensor
    """Keys before their rotation."""
    scale: float


@dataclass(frozen=True)
class Source:
    """Where in a tower signals come from."""

    attentions: Sequence[torch.nn.Module]
    """Those of all blocks, in order."""
    block: int
    """The block that most signals are of, below 0 from the end."""
    layers: Sequence[int]
    """The blocks that attend to whole frames, in order."""
    heads: Callable[[Any, Call], Iterable[Heads]]
    """Queries and keys of each frame, from an attention and what it was called with."""
    pool: Callable[[torch.Tensor], torch.Tensor]
    """Means over the patches that make a token: (patches, ...) of a frame to (tokens, ...)."""
    others: Mapping[str, tuple[torch.nn.Module, Look]]
    """Signals that come out of no block: by name, what to overhear, and what of its call is the signal."""
    first: int = 0
    """Rows before the patches: 1 where there is a [CLS]."""

    def looks(self, wanted: frozenset[str]) -> dict[torch.nn.Module, Look]:
        """What to overhear for the ``wanted`` signals."""
        names: dict[torch.nn.Module, frozenset[str]] = {}

        def add(block: int, some: frozenset[str]) -> None:
            attention = self.attentions[block]
            names[attention] = names.get(attention, frozenset()) | some

        add(self.block, wanted & _OF_BLOCK)
        add(-1, wanted & _OF_LAST)
        for block in self.layers:
            add(block, frozenset(of for name, of in _OF_LAYERS.items() if name in wanted))
        looks: dict[torch.nn.Module, Look] = {
            attention: partial(self._look, attention, some) for attention, some in names.items() if some
        }
        for module in {self.others[name][0] for name in wanted & self.others.keys()}:
            some = {name: look for name, (other, look) in self.others.items() if other is module and name in wanted}
            looks[module] = partial(_each, some)
        return looks

    def signals(self, wanted: frozenset[str], notes: Mapping[torch.nn.Module, Any]) -> Signals:
        """The ``wanted`` signals out of what was noted of one run of frames."""
        found = {name: notes[self.attentions[self.block]][name] for name in wanted & _OF_BLOCK}
        found |= {name: notes[self.attentions[-1]][name] for name in wanted & _OF_LAST}
        for name, of in _OF_LAYERS.items():
            if name in wanted:
                found[name] = torch.stack([notes[self.attentions[block]][of] for block in self.layers], dim=1)
        return found | {name: notes[self.others[name][0]][name] for name in wanted & self.others.keys()}

    def _look(self, attention: Any, names: frozenset[str], call: Call) -> Signals:
        frames = [self._of_frame(names, heads) for heads in self.heads(attention, call)]
        return {name: torch.cat([frame[name] for frame in frames]) for name in frames[0]}

    def _of_frame(self, names: frozenset[str], heads: Heads) -> Signals:
        query, key, scale, patches = heads.query, heads.key, heads.scale, slice(self.first, None)
        signals: Signals = {}
        if names & {"keys", "head_mean_keys"}:
            keys = self.pool(heads.plain[:, patches].transpose(0, 1))
            signals |= {"keys": keys.flatten(1), "head_mean_keys": keys.mean(dim=1)}
        if "cls_attention" in names:
            signals["cls_attention"] = self.pool(attend(query[:, :1], key, scale)[patches])
        if "cls_logits" in names:
            logits = (query[:, :1] @ key.transpose(1, 2)).mean(dim=(0, 1)) * scale
            signals["cls_logits"] = self.pool(logits[patches])
        if names & {"received_attention", "hub_attention"}:
            received = attend(query, key, scale)[patches]
            signals["received_attention"] = self.pool(received)
            if "hub_attention" in names:
                columns = [hub_attention(query, key, scale, received, threshold) for threshold in HUBS]
                signals["hub_attention"] = self.pool(torch.stack(columns, dim=1))
        if "meanq" in names:
            # Stands in for [CLS], so it is made of patches alone.
            by_token = self.pool(key[:, patches].transpose(0, 1)).transpose(0, 1)
            signals["meanq"] = attend(query[:, patches].mean(dim=1, keepdim=True), by_token, scale)
        return {name: values for name, values in signals.items() if name in names}


def _each(looks: Mapping[str, Look], call: Call) -> Signals:
    return {name: look(call) for name, look in looks.items()}


@contextmanager
def listening(wanted: frozenset[str], source: Callable[[], Source]) -> Iterator[Signals]:
    """The ``wanted`` signals of the run of frames that a tower is given inside the context; they are there after it."""
    found: Signals = {}
    if not wanted:
        yield found
        return
    tower = source()
    with overhear(tower.looks(wanted)) as notes:
        yield found
    found.update(tower.signals(wanted, notes))


def attend(query: torch.Tensor, key: torch.Tensor, scale: float) -> torch.Tensor:
    """How much ``query`` (heads, q, d) looks at each ``key`` (heads, n, d), as float32 (n,): mean over both."""
    total = torch.zeros(key.shape[1], dtype=torch.float32, device=key.device)
    for run in query.float().split(QUERIES_AT_ONCE, dim=1):
        total += torch.softmax(run @ key.float().transpose(1, 2) * scale, dim=-1).sum(dim=(0, 1))
    return total / (query.shape[0] * query.shape[1])


def hub_attention(
    query: torch.Tensor, key: torch.Tensor, scale: float, received: torch.Tensor, threshold: float
) -> torch.Tensor:
    """How much the hubs of a frame look at its patches (VFlowOpt, ICCV 2025), as float32 (patches,).

    Args:
        query: (heads, n, d), the patches last, behind a [CLS] if there is one; ``key`` likewise.
        received: float32 (patches,): what each receives. A hub receives more than ``threshold`` times their mean.

    Returns:
        The mean over hubs and heads of the hubs' rows of the softmax; ``received`` where there is no hub.
    """
    first = query.shape[1] - len(received)
    hubs = torch.nonzero(received > threshold * received.mean()).flatten() + first
    return attend(query[:, hubs], key, scale)[first:] if len(hubs) else received


def rotary_heads(lengths: Sequence[int], attention: Any, call: Call) -> Iterator[Heads]:
    """Of towers with one product for queries, keys and values, and rotary positions; frames are ``lengths`` patches."""
    states = first_argument(call)
    tables = (table.float() for table in call[1]["position_embeddings"])
    for part, cos, sin in zip(*(values.split(list(lengths)) for values in (states, *tables))):
        query, key, _ = attention.qkv(part).float().view(len(part), 3, attention.num_heads, -1).permute(1, 2, 0, 3)
        yield Heads(_rotate(query, cos, sin), _rotate(key, cos, sin), key, attention.scaling)


def plain_heads(attention: Any, call: Call) -> Iterator[Heads]:
    """Of towers like CLIP's, whose attention takes (frames, n, C) and may normalise its queries and keys."""
    for states in first_argument(call):
        query, key = attention.q_proj(states), attention.k_proj(states)
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        query, key = (
            values.float().unflatten(-1, (attention.num_heads, -1)).transpose(0, 1) for values in (query, key)
        )
        yield Heads(query, key, key, attention.scale)


def probe_attention(head: Any, states: torch.Tensor) -> torch.Tensor:
    """How much the query of SigLIP's pooling ``head`` looks at each patch of (frames, n, C): float32 (frames, n)."""
    attention = head.attention
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    query, keys = F.linear(head.probe[0], weights[0], biases[0]), F.linear(states, weights[1], biases[1])
    query, keys = (values.float().unflatten(-1, (attention.num_heads, -1)) for values in (query, keys))
    scale = query.shape[-1] ** -0.5
    return torch.stack([attend(query.transpose(0, 1), key.transpose(0, 1), scale) for key in keys])


def neighbours(unit: int, values: torch.Tensor) -> torch.Tensor:
    """(patches, ...) to (tokens, ...): the mean of the ``unit`` patches that make a token and stand in a row."""
    return values.unflatten(0, (-1, unit)).mean(dim=1)


def squares(side: int, values: torch.Tensor) -> torch.Tensor:
    """(patches, ...) of a square picture, row by row, to (tokens, ...): the mean of ``side`` x ``side`` of them."""
    if side == 1:
        return values
    columns = int(len(values) ** 0.5)
    return values.unflatten(0, (columns // side, side, columns // side, side)).mean(dim=(1, 3)).flatten(0, 1)


def window_order(rows: int, columns: int, side: int) -> torch.Tensor:
    """int64 (rows * columns,): a frame's tokens in the order of Qwen2.5-VL's tower, window by window.

    Args:
        side: Tokens along the side of a window; those at the right and at the bottom may be smaller.
    """
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    window = (y // side) * -(-columns // side) + x // side
    return torch.argsort(window.flatten(), stable=True)


def _rotate(values: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions (n, d) on (heads, n, d)."""
    left, right = values.chunk(2, dim=-1)
    return values * cos + torch.cat([-right, left], dim=-1) * sin
