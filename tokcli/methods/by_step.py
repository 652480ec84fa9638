"""Methods that work on one temporal step after another: a still is one step, a video has one for each frame or pair.

Every step gets its part of the budget, in proportion to its tokens, and what a step cannot use goes to the steps after
it. So such methods need no more than a step at a time, and long videos stay within bounded memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import torch

from tokcli.errors import MethodError
from tokcli.methods.base import Stats
from tokcli.methods.budget import SizeBudget, grid_tokens, share_count
from tokcli.methods.layout import take
from tokcli.methods.output import Groups, select
from tokcli.methods.tiles import Step, step_of, tiled_steps
from tokcli.ops.allocation import proportional
from tokcli.ops.rows import gathered
from tokcli.ops.selection import top_k
from tokcli.types import TokenSet, View, VisualTokens

Choose = Callable[[Step, int], torch.Tensor]
"""From a step and a number below that of its tokens: the rows to keep, int64, in any order."""
Merge = Callable[[Step, int, Groups], None]
"""The same for methods that merge; what becomes of the step's rows goes into the groups."""

Work = TypeVar("Work")


class StepBudget:
    """How many tokens each step gets, as steps come; ``count_of`` says what number a share of all tokens is."""

    def __init__(
        self, name: str, options: SizeBudget, views: tuple[View, ...], count_of: Callable[[float, int], int]
    ) -> None:
        self._name = name
        self._views = views
        self._places = grid_tokens(views)
        self._ceiling = options.max_tokens
        share = 1.0 if options.keep is None else options.keep
        self._total = count_of(share, self._places) if self._ceiling is None else self._ceiling
        self._used = 0

    def spend(self, step: int, available: int, structural: int) -> int:
        """Number of tokens for a step that has ``available`` and, beside them, ``structural`` rows.

        Raises :class:`MethodError` if a ceiling leaves no token beside the structural rows.
        """
        if self._ceiling is not None:
            least = 0 if self._used else min(1, available)
            self._used += structural
            if self._used + least > self._ceiling:
                raise MethodError(
                    f"method {self._name!r} keeps at least a token: {self._used + least} tokens of this item, "
                    f"over max_tokens={self._ceiling}; allow that many"
                )
        until = sum(
            (min(step + 1, view.grid[0]) if view.grid[0] > 1 else 1) * view.grid[1] * view.grid[2]
            for view in self._views
        )
        # Rounded up, so that the first step gets a token and the last step what makes up the total.
        due = -(-until * self._total // max(1, self._places)) - self._used
        count = max(0, min(available, due))
        self._used += count
        return count


class _BySteps(Generic[Work]):
    """``prepare`` is called for each chunk and gives what works on its steps."""

    def __init__(
        self,
        name: str,
        options: SizeBudget,
        views: tuple[View, ...],
        prepare: Callable[[VisualTokens], Work],
        *,
        count_of: Callable[[float, int], int] = share_count,
    ) -> None:
        self._budget = StepBudget(name, options, views, count_of)
        self._prepare = prepare

    def _steps(self, chunk: VisualTokens) -> list[tuple[Step, int]]:
        """The steps of a chunk that may keep something, with how much."""
        places = gathered(chunk.coords, torch.nonzero(chunk.structural).flatten())[:, :2].tolist()
        structural = Counter(step_of(chunk.views[view], step) for view, step in places)
        found = []
        for step in tiled_steps(chunk):
            count = self._budget.spend(step.index, len(step), structural[step.index])
            if count:
                found.append((step, count))
        return found

    def finish(self) -> Stats:
        return {}


class StepSelection(_BySteps[Choose]):
    """Keeps rows of each step."""

    def push(self, chunk: VisualTokens) -> TokenSet:
        keep = torch.zeros(len(chunk), dtype=torch.bool)
        choose = self._prepare(chunk)
        for step, count in self._steps(chunk):
            keep[step.rows if count == len(step) else choose(step, count)] = True
        return select(chunk, keep)


class StepMerging(_BySteps[Merge]):
    """Merges rows of each step."""

    def push(self, chunk: VisualTokens) -> TokenSet:
        groups = Groups(chunk)
        merge = self._prepare(chunk)
        for step, count in self._steps(chunk):
            if count == len(step):
                groups.add_alone(step.rows)
            else:
                merge(step, count, groups)
        return groups.merged()


def rounded(share: float, count: int) -> int:
    """As authors write it: a product in floating point, to the nearest number, halves to the even one; 1 at least."""
    return max(1, round(share * count))


def cut_off(share: float, count: int) -> int:
    """As authors write it: a product in floating point, cut off; 1 at least."""
    return max(1, int(share * count))


def best_of_each(step: Step, scores: torch.Tensor, counts: Iterable[int]) -> torch.Tensor:
    """The rows with the best of (N,) ``scores`` in each tile, as many as ``counts`` says: int64."""
    return torch.cat([tile.rows[top_k(take(scores, tile.rows), k)] for tile, k in zip(step.tiles, counts)])


def shares_of(step: Step, count: int) -> list[int]:
    """``count`` divided among the tiles: the same number for tiles of one size, by size otherwise."""
    counts: list[int] = proportional(torch.tensor(step.sizes), count).tolist()
    return counts
