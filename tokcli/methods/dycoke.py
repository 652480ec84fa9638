"""DyCoke, token temporal merging: in groups of four steps, one stays whole and three keep what changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import ClassVar

import torch
from pydantic import Field, model_validator

from tokcli.methods.base import Stats, Stream, method
from tokcli.methods.budget import ShareBudget, grid_tokens, share_count
from tokcli.methods.finite import refuse_not_finite
from tokcli.methods.layout import Block, blocks
from tokcli.methods.options import VariantOptions
from tokcli.methods.output import select
from tokcli.ops.selection import top_k_masks
from tokcli.ops.similarity import cosine_from_squares, squares_and_dots
from tokcli.types import TokenSet, View, VisualTokens

GROUP = 4
STEPS_AT_A_TIME = 4
"""Compared while they are in the processor's cache, and held in float32."""
DEFAULT_RATIO = 0.7


class DycokeOptions(VariantOptions, ShareBudget):
    own_budgets: ClassVar[tuple[str, ...]] = ("merging_ratio",)
    default_budget: ClassVar[Mapping[str, float]] = {"merging_ratio": DEFAULT_RATIO}

    merging_ratio: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Share to drop of every step that is not kept whole; 0.7 where no budget is given.",
    )

    @model_validator(mode="after")
    def _official_ratio(self) -> DycokeOptions:
        if self.keep is not None and self.variant == "official":
            raise ValueError("variant='official' knows no keep; give merging_ratio, or take variant='fixed'")
        return self


@dataclass(frozen=True)
class _Reference:
    """A step that later ones of its group are compared with."""

    position: int
    """In the group."""
    tokens: torch.Tensor
    """float32 (P, D)."""
    squares: torch.Tensor
    """float32 (P,): squared lengths."""
    known: torch.Tensor
    """bool (P,): where it has a token."""


@dataclass
class _Track:
    """Where one view stands: how many steps it had, what the next ones are compared with, the budget spent."""

    steps: int = 0
    spent: int = 0
    references: list[_Reference] = field(default_factory=list)

    def reference_for(self, position: int) -> _Reference | None:
        """What step ``position`` of a group is compared with; nothing for the first.

        Steps 1 and 2 are compared with step 0, and step 3 with step 2: each with the number that is left when its
        lowest bit is cleared. That gives a reference in longer groups too.
        """
        while self.references and (position == 0 or self.references[-1].position > position & (position - 1)):
            self.references.pop()
        return self.references[-1] if self.references else None

    def own(self) -> None:
        """Copy the references, so that the state holds a few steps and not the chunk that they are a part of."""
        self.references = [replace(step, tokens=step.tokens.clone()) for step in self.references]


class TemporalTokenMerging:
    """State over one item: at most log2(group) steps of each view."""

    def __init__(self, options: DycokeOptions, views: tuple[View, ...]) -> None:
        self._options = options
        self._views = views
        self._share = None if options.keep is None else _Share(options.keep, views)
        self._group = GROUP if self._share is None else self._share.group
        self._tracks: dict[int, _Track] = {}
        self._all_finite = True
        """Whether the squared lengths of the last chunk's tokens prove that."""

    def push(self, chunk: VisualTokens) -> TokenSet:
        keep = torch.zeros(len(chunk), dtype=torch.bool)
        self._all_finite = not bool(chunk.structural.any())
        for block in blocks(chunk):
            keep[block.rows[self._kept_places(block, block.gather(chunk.tokens))]] = True
        if not self._all_finite:
            refuse_not_finite(chunk)
        return select(chunk, keep)

    def _kept_places(self, block: Block, frames: torch.Tensor) -> torch.Tensor:
        """bool (T, P), false where a place has no row."""
        track, present = self._tracks.setdefault(block.view, _Track()), block.present
        counts = [
            self._count(block.view, track, step, available)
            for step, available in enumerate(present.sum(dim=1).tolist(), start=track.steps)
        ]
        parts = zip(frames.split(STEPS_AT_A_TIME), present.split(STEPS_AT_A_TIME))
        similarity = torch.cat([self._similarity(track, tokens.float(), having) for tokens, having in parts])
        track.own()
        return top_k_masks((-similarity).masked_fill_(~present, -torch.inf), torch.tensor(counts))

    def _similarity(self, track: _Track, tokens: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Cosines of the next steps' float32 (T, P, D) tokens with what they are compared with: float32 (T, P).

        1 for steps that are not compared. A method before this one may have left gaps: -1 where there is no other, for
        what can't be compared is not redundant.
        """
        squares, others = torch.empty(present.shape), []
        references: list[_Reference | None] = []
        known = torch.ones_like(present)
        for index, own in enumerate(squares):
            position = track.steps % self._group
            reference = track.reference_for(position)
            references.append(reference)
            others.append(own if reference is None else reference.squares)
            if reference is not None:
                known[index] = reference.known
            if position % 2 == 0:
                track.references.append(_Reference(position, tokens[index], own, present[index]))
            track.steps += 1
        # Into the places that the references look at, some of which are of these steps.
        squares[:], dots = squares_and_dots(tokens, [None if step is None else step.tokens for step in references])
        self._all_finite &= bool(torch.isfinite(squares).all())
        return cosine_from_squares(dots, squares, torch.stack(others)).masked_fill_(~known, -1.0)

    def _count(self, view: int, track: _Track, step: int, available: int) -> int:
        """How many tokens of a step are left; counts them as spent."""
        position, official = step % self._group, self._options.variant == "official"
        if official and self._is_lost(view, step):
            return 0
        if position == 0:
            return available
        if self._share is not None:
            allowed = min(available, self._share.until(view, step) - track.spent)
            track.spent += allowed
            return allowed
        ratio = self._options.merging_ratio or 0.0
        if not official:
            return int((1 - Decimal(repr(ratio))) * available)
        in_last_group = step - position >= self._views[view].grid[0] - GROUP
        return available if position == 2 and in_last_group else int((1 - ratio) * available)

    def _is_lost(self, view: int, step: int) -> bool:
        """Whether the authors' code, which goes through pairs of steps, overlooks this one."""
        steps = self._views[view].grid[0]
        return steps > 1 and steps % 2 == 1 and step == steps - 1

    def finish(self) -> Stats:
        return {}


class _Share:
    """Spends ``keep`` evenly over the steps that are not kept whole, as the planned grid alone tells.

    A share that whole steps use up by themselves doubles the group until they do not.
    """

    def __init__(self, keep: float, views: tuple[View, ...]) -> None:
        total, budget = grid_tokens(views), share_count(keep, grid_tokens(views))
        self._places = [view.grid[1] * view.grid[2] for view in views]
        self.group = GROUP
        while self._whole(views) > budget and self.group < max(view.grid[0] for view in views):
            self.group *= 2
        whole = self._whole(views)
        self._budget, self._reduced = max(0, budget - whole), total - whole
        self._before = [0]
        for view, places in zip(views, self._places):
            self._before.append(self._before[-1] + self._reduced_steps(view.grid[0]) * places)

    def _reduced_steps(self, steps: int) -> int:
        return steps - -(-steps // self.group)

    def _whole(self, views: tuple[View, ...]) -> int:
        return sum(
            (view.grid[0] - self._reduced_steps(view.grid[0])) * places for view, places in zip(views, self._places)
        )

    def until(self, view: int, step: int) -> int:
        """What steps 0..``step`` of a view may keep, those kept whole not counted."""
        passed = self._before[view] + self._reduced_steps(step + 1) * self._places[view]
        return self._budget * passed // self._reduced - self._budget * self._before[view] // self._reduced


@method(
    "dycoke",
    options=DycokeOptions,
    kind="select",
    count="exact",
    paper="arXiv:2411.15024",
    streaming=True,
    refuses_not_finite=True,
    golden=("dycoke_ttm",),
    code="KD-TAO/DyCoke @ dd746349",
    licence="Apache-2.0",
    variants={
        "official": "of the last group the third step stays whole, and of an odd number of steps the last one is lost",
        "fixed": "every group is treated alike, no step is lost, and shares are counted without rounding errors",
    },
)
def dycoke(options: DycokeOptions, views: tuple[View, ...]) -> Stream:
    """Keep every fourth step whole, and of the three after it the tokens that changed most.

    This is the paper's token temporal merging, the part before the language model; in spite of the name nothing is
    averaged. In a group of four steps the second and the third are compared with the first, and the fourth with the
    third, place by place; each keeps its ``1 - merging_ratio`` least similar tokens. A view with a single step stays
    whole.

    With ``keep`` the steps that are not whole share what the whole ones leave, so that the total comes out at that
    share of the planned length. Whole steps alone are a quarter: for less, groups of 8, 16 and so on are taken, in
    which a step is compared with the one whose number has the lowest bit cleared (5 and 6 with 4, 4 with 0). The least
    that is kept is the first step of each view.

    The authors emit the tokens of a step by similarity; here they stay in the order of the grid.
    """
    return TemporalTokenMerging(options, views)
