"""How much a token matters to the vision tower: one vector for every method that ranks tokens by attention.

Papers take what their tower offers: the attention of [CLS], of a pooling head, the mean attention received. Users
choose among those that theirs offers with ``--importance``.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field

from tokcli.methods.layout import blocks
from tokcli.methods.options import Options
from tokcli.types import VisualTokens

Importance = Literal["cls", "recv", "meanq", "anticos"]
SIGNAL_OF: dict[str, str] = {"cls": "cls_attention", "recv": "received_attention", "meanq": "meanq"}
"""The signal that each kind of importance is read from; ``anticos`` needs the tokens alone."""


class ImportanceOptions(Options):
    importance: Importance = Field(
        default="recv",
        description="What ranks tokens: 'recv' the attention that they receive, 'cls' that of [CLS] if there is "
        "one, 'meanq' that of the mean query, 'anticos' their unlikeness to the mean token.",
    )


def importance_signals(options: ImportanceOptions) -> tuple[str, ...]:
    """The signals that the vision tower has to give: for ``needs_from``."""
    signal = SIGNAL_OF.get(options.importance)
    return () if signal is None else (signal,)


def importance_of(visual: VisualTokens, options: ImportanceOptions) -> torch.Tensor:
    """Return float32 (N,), larger for tokens that matter more; zeros for structural rows with ``anticos``."""
    signal = SIGNAL_OF.get(options.importance)
    if signal is not None:
        return visual.signals[signal].float()
    scores = torch.zeros(len(visual))
    for block in blocks(visual):
        present = block.present
        frames = block.gather(visual.tokens).float()
        mean = frames.sum(1) / present.sum(1, keepdim=True)
        scores[block.rows[present]] = -F.cosine_similarity(frames, mean[:, None], dim=-1)[present]
    return scores
