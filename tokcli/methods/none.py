"""Keep everything."""

from __future__ import annotations

import torch

from tokcli.methods.base import Stats, Stream, method
from tokcli.methods.options import Options
from tokcli.methods.output import select
from tokcli.types import TokenSet, View, VisualTokens


class NoOptions(Options):
    """This method has no options."""


class KeepAll:
    """Gives every chunk back."""

    def push(self, chunk: VisualTokens) -> TokenSet:
        return select(chunk, torch.ones(len(chunk), dtype=torch.bool))

    def finish(self) -> Stats:
        return {}


@method("none", options=NoOptions, kind="select", count="by content", streaming=True)
def none(options: NoOptions, views: tuple[View, ...]) -> Stream:
    """Keep every token.

    The cache then answers exactly like the model from pixels, and other caches can be derived from it.
    """
    return KeepAll()
