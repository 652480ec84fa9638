"""RLT, Run-Length Tokenization: one token for as long as the pixels under it stay as they are."""

from __future__ import annotations

import torch
from pydantic import Field

from tokcli.methods.base import Stats, Stream, method
from tokcli.methods.budget import Budgeted
from tokcli.methods.layout import blocks
from tokcli.methods.output import select
from tokcli.types import TokenSet, View, VisualTokens


class RltOptions(Budgeted):
    threshold: float = Field(
        default=0.0226,
        ge=0,
        le=1,
        description="Mean absolute change in [0, 1] up to which pixels count as unchanged; 0: exactly equal.",
    )


class RunLengths:
    """State over one item: of each view the last step, and which run each of its places is in."""

    def __init__(self, options: RltOptions) -> None:
        self._threshold = options.threshold
        self._open: dict[int, tuple[int, torch.Tensor]] = {}
        self._lengths = torch.zeros(0, dtype=torch.int32)

    def push(self, chunk: VisualTokens) -> TokenSet:
        change = chunk.signals["pixel_change"]
        keep = torch.zeros(len(chunk), dtype=torch.bool)
        found = blocks(chunk)
        for block in found:
            last, runs = self._open.get(block.view, (-1, torch.full_like(block.rows[0], -1)))
            known, still = runs >= 0, block.gather(change) <= self._threshold
            for step, rows, unchanged in zip(block.steps.tolist(), block.rows, still):
                # The change is about the step before: where a method before this one took it away, a run begins.
                goes_on = unchanged & known if step == last + 1 else torch.zeros_like(unchanged)
                known, last = rows >= 0, step
                keep[rows[known & ~goes_on]] = True
        self._count(chunk, keep)
        return select(chunk, keep)

    def _count(self, chunk: VisualTokens, keep: torch.Tensor) -> None:
        """Number the runs that begin in a chunk, and make each longer by the rows that are in it."""
        number = keep.cumsum(0) - 1 + len(self._lengths)
        self._lengths = torch.cat([self._lengths, torch.zeros(int(keep.sum()), dtype=torch.int32)])
        for block in blocks(chunk):
            _, runs = self._open.get(block.view, (-1, torch.full_like(block.rows[0], -1)))
            for rows in block.rows:
                present = rows >= 0
                begins = present & keep[rows]
                runs = torch.where(begins, number[rows], torch.where(present, runs, -1))
                self._lengths.index_add_(0, runs[present], torch.ones(int(present.sum()), dtype=torch.int32))
            self._open[block.view] = (int(block.steps[-1]), runs)

    def finish(self) -> Stats:
        return {"run_length": self._lengths.numpy()}


@method(
    "rlt",
    options=RltOptions,
    kind="select",
    count="by content",
    paper="arXiv:2411.05222",
    streaming=True,
    needs={"pixel_change"},
    code="rccchoudhury/rlt @ 69ec8b4b",
    licence="MIT",
    golden=("rlt",),
)
def rlt(options: RltOptions, views: tuple[View, ...]) -> Stream:
    """Keep one token for as long as the pixels under it stay as they are.

    A token is dropped where the last frame of its step differs from the first frame of the step before by
    ``threshold`` at most, on average over its square. The first step of each view is kept whole. The threshold is in
    [0, 1]; the authors' 0.1 is on values that ImageNet's deviations were divided out of, and is 0.0226 here. How many
    steps each kept token stands for is stored with the item as ``run_length``, in the order of the tokens: the
    authors' embedding of it is off in all that they published, and models that were not trained with it can't use it.

    Each step is compared with the one before, so a slow drift is never seen; dtd with reference=kept sees it.

    The authors leave unchanged patches out before the encoder, which saves its time too. For that add
    ``--reuse-unchanged`` with the same number: what didn't change isn't encoded, and what did sees only what did.
    """
    return RunLengths(options)
