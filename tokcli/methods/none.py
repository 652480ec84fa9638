"""Keep everything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from tokcli.methods.base import Stats, Stream, method
from tokcli.methods.options import Options
from tokcli.methods.output import select
from tokcli.types import TokenSet, View, VisualTokens

SIGNAL_PREFIX = "signal."
"""Before the name of a signal among an item's stored arrays: ``signal.pixel_change``."""
_SHAPES = {"neighbour_distance": (2, 3)}
"""What signals have for each row that are more than a vector."""
STRUCTURAL = "structural"
"""The stored array that tells structural rows; left out where there are none."""


class NoneOptions(Options):
    signals: str = Field(
        default="",
        description="Signals to store beside the tokens, a,b: what methods that run on this cache later need.",
    )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.signals.split(",") if name.strip())

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Caches that were made before there was this option must stay equal to those without signals.
        return {key: value for key, value in handler(self).items() if value}


class KeepAll:
    """Gives every chunk back, and remembers what was asked for beside the tokens."""

    def __init__(self, signals: tuple[str, ...] = ()) -> None:
        self._signals: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in signals}
        self._structural: list[npt.NDArray[np.bool_]] = []

    def push(self, chunk: VisualTokens) -> TokenSet:
        for name, parts in self._signals.items():
            parts.append(_array(chunk.signals[name]))
        self._structural.append(chunk.structural.numpy())
        return select(chunk, torch.ones(len(chunk), dtype=torch.bool))

    def finish(self) -> Stats:
        stats: dict[str, npt.NDArray[Any]] = {
            SIGNAL_PREFIX + name: np.concatenate(parts) for name, parts in self._signals.items() if parts
        }
        structural = np.concatenate(self._structural) if self._structural else np.zeros(0, dtype=np.bool_)
        return {**stats, STRUCTURAL: structural} if structural.any() else stats


def _array(signal: torch.Tensor) -> npt.NDArray[Any]:
    """A signal (n, ...) as a flat array; NumPy has no bfloat16."""
    return (signal.float() if signal.dtype == torch.bfloat16 else signal).detach().cpu().numpy().reshape(-1)


def stored_signals(stats: Mapping[str, npt.NDArray[Any]], rows: int) -> dict[str, torch.Tensor]:
    """The signals among an item's stored arrays, each with ``rows`` rows again: (rows,), (rows, width) or their own."""
    signals = {}
    for name, values in stats.items():
        if name.startswith(SIGNAL_PREFIX):
            tensor = torch.from_numpy(np.array(values))
            name = name.removeprefix(SIGNAL_PREFIX)
            signals[name] = tensor if len(tensor) == rows else tensor.view(rows, *_SHAPES.get(name, (-1,)))
    return signals


@method(
    "none",
    options=NoneOptions,
    kind="select",
    count="by content",
    streaming=True,
    needs_from=lambda options: options.names,
)
def none(options: NoneOptions, views: tuple[View, ...]) -> Stream:
    """Keep every token.

    The cache then answers exactly like the model from pixels, and other caches can be derived from it; with
    ``signals`` also those of methods that look at more than the tokens.
    """
    return KeepAll(options.names)
