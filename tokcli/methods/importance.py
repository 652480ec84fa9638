"""How much a token matters to the vision tower: one vector for every method that ranks tokens by attention.

Papers take what their tower offers: the attention of [CLS], of a pooling head, the mean attention received. Users
choose among those that theirs offers with ``--importance``.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from tokcli.errors import MethodError
from tokcli.methods.budget import share_asked
from tokcli.methods.layout import blocks
from tokcli.methods.options import Options
from tokcli.ops.hubs import setting_for
from tokcli.types import VisualTokens

Importance = Literal["cls", "recv", "meanq", "hub", "probe", "anticos"]
SIGNAL_OF: dict[str, str] = {
    "cls": "cls_attention",
    "recv": "received_attention",
    "meanq": "meanq",
    "hub": "hub_attention",
    "probe": "probe_attention",
}
"""The signal that each kind of importance is read from; ``anticos`` needs the tokens alone."""


class ImportanceOptions(Options):
    importance: Importance = Field(
        default="recv",
        description="What ranks tokens: 'recv' the attention that they receive, 'cls' that of [CLS] if there is "
        "one, 'meanq' that of the mean query, 'hub' that of the tokens that receive most, 'probe' that of a pooling "
        "head if there is one, 'anticos' their unlikeness to the mean token.",
    )


class AttentionOptions(ImportanceOptions):
    """For methods that look at several blocks of the tower."""

    importance: Literal["cls", "recv"] = Field(
        default="recv",
        description="What ranks tokens: 'recv' the attention that they receive, 'cls' that of [CLS] if there is one.",
    )


def layers_signal(options: AttentionOptions) -> str:
    """The signal with a column for each block of the tower."""
    return {"cls": "cls_attention_layers", "recv": "received_layers"}[options.importance]


def importance_signals(options: ImportanceOptions) -> tuple[str, ...]:
    """The signals that the vision tower has to give: for ``needs_from``."""
    signal = SIGNAL_OF.get(options.importance)
    return () if signal is None else (signal,)


def importance_of(visual: VisualTokens, options: ImportanceOptions) -> torch.Tensor:
    """Return float32 (N,), larger for tokens that matter more; zeros for structural rows with ``anticos``.

    What hubs are depends on the budget. Raises :class:`MethodError` for a signal that is not a number somewhere.
    """
    signal = SIGNAL_OF.get(options.importance)
    if options.importance == "hub":
        return numbers_of(visual, SIGNAL_OF["hub"], setting_for(share_asked(options, visual.views)))
    if signal is not None:
        return numbers_of(visual, signal)
    scores = torch.zeros(len(visual))
    for block in blocks(visual):
        present = block.present
        frames = block.gather(visual.tokens).float()
        mean = frames.sum(1) / present.sum(1, keepdim=True)
        scores[block.rows[present]] = -F.cosine_similarity(frames, mean[:, None], dim=-1)[present]
    return scores


def numbers_of(visual: VisualTokens, signal: str, column: int | None = None) -> torch.Tensor:
    """A signal, or a column of it, as float32 (N, ...).

    Raises :class:`MethodError` where it is NaN, which no order has a place for.
    """
    values = visual.signals[signal]
    values = (values if column is None else values[:, column]).float()
    bad = torch.isnan(values)
    if bool(bad.any()):
        rows = torch.nonzero(bad.flatten(1).any(dim=1) if bad.ndim > 1 else bad).flatten()
        place = tuple(visual.coords[int(rows[0])].tolist())
        raise MethodError(
            f"signal {signal!r} is not a number for {len(rows)} of {len(visual)} tokens, the first at "
            f"(view, t, y, x) = {place}; the vision tower overflowed: encode with dtype float32 or bfloat16"
        )
    return values
