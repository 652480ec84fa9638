"""Methods in a row, with their options: what compresses items, and what a cache records of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import numpy.typing as npt
import torch

from tokcli.errors import MethodError
from tokcli.methods.base import METHODS, FrameChoice, Method, Stats, Stream
from tokcli.methods.deepstack import with_deepstack
from tokcli.methods.finite import refuse_not_finite
from tokcli.methods.options import Options
from tokcli.ops.reducing import InTower
from tokcli.types import Reduced, TokenSet, View, VisualTokens


@dataclass(frozen=True)
class Stage:
    """One method of a composition, with its options."""

    method: Method
    options: Options

    @property
    def before_tokens(self) -> bool:
        """Whether it changes what the vision tower gets or does."""
        return self.method.where(self.options) != "tokens"


class Compressor:
    """One method or several in a row, with options; equal to another when their JSON is.

    In a composition each method works on what the one before kept: coordinates are those of the item, sources and
    assignments refer to the item's rows, masses add up.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = tuple(stages)
        choices = [stage.method.frame_choice(stage.options) for stage in self._stages]
        for stage, choice in zip(self._stages[1:], choices[1:]):
            if choice is not None:
                raise MethodError(
                    f"method {stage.method.name!r} chooses frames by {choice.features!r} before there are tokens, "
                    f"so it must come first, not after {self._stages[0].method.name!r}"
                )
        self.frame_choice: FrameChoice | None = choices[0] if choices else None
        """How frames are chosen before the vision tower, or None."""
        self._in_tower = [stage for stage in self._stages if stage.method.where(stage.options) == "tower"]
        for stage in self._in_tower:
            before = [other for other in self._stages[: self._stages.index(stage)] if not other.before_tokens]
            if before:
                raise MethodError(
                    f"method {stage.method.name!r} works inside the vision tower, before there are tokens, so it must "
                    f"stand before {before[0].method.name!r}"
                )
        if len(self._in_tower) > 1:
            both = " and ".join(stage.method.name for stage in self._in_tower)
            raise MethodError(f"only one method can work inside the vision tower, not {both}; leave all but one out")

    @property
    def in_tower(self) -> InTower | None:
        """What is done inside the vision tower, or None."""
        return next((stage.method.inside(stage.options) for stage in self._in_tower), None)

    @property
    def on_tokens(self) -> Compressor:
        """What is left to be done with the tokens after :attr:`frame_choice` and :attr:`in_tower`."""
        left = [stage for stage in self._stages[self.frame_choice is not None :] if stage not in self._in_tower]
        if len(left) == len(self._stages):
            return self
        keep_all = METHODS.get("none")
        return Compressor(left or [Stage(keep_all, keep_all.parse({}))])

    @property
    def name(self) -> str:
        return ",".join(stage.method.name for stage in self._stages)

    @property
    def needs(self) -> frozenset[str]:
        """Signals that the vision tower has to give beside the tokens."""
        return frozenset().union(*(stage.method.signals(stage.options) for stage in self._stages))

    @property
    def streaming(self) -> bool:
        """Whether items can be compressed chunk by chunk, in bounded memory."""
        return all(stage.method.streaming for stage in self._stages)

    @property
    def pixel_scale(self) -> float:
        """Area of the frames given to the vision tower, as a share of what it would take by itself."""
        return prod(stage.method.pixel_scale(stage.options) for stage in self._stages)

    @property
    def before_tokens(self) -> list[dict[str, Any]]:
        """Those of its methods, as JSON, that change what the vision tower gets or does."""
        return [
            description for stage, description in zip(self._stages, self.to_json()["methods"]) if stage.before_tokens
        ]

    def followed_by(self, further: Compressor) -> Compressor:
        """The composition of both."""
        return Compressor([*self._stages, *further._stages])

    def to_json(self) -> dict[str, Any]:
        """What :meth:`from_json` makes an equal compressor of."""
        return {
            "methods": [
                {"name": stage.method.name, "options": stage.options.model_dump(mode="json")} for stage in self._stages
            ]
        }

    @classmethod
    def from_json(cls, description: Mapping[str, Any]) -> Compressor:
        """Raises :class:`MethodError` for unknown methods and options."""
        try:
            entries = [(entry["name"], entry["options"]) for entry in description["methods"]]
        except (KeyError, TypeError) as error:
            raise MethodError(f"not the description of a method: {description!r:.200}") from error
        return cls([Stage(METHODS.get(name), METHODS.get(name).parse(options)) for name, options in entries])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Compressor) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_json(), sort_keys=True))

    def __repr__(self) -> str:
        return f"Compressor({self.to_json()['methods']})"

    def start(self, item_id: str, views: tuple[View, ...]) -> Session:
        """Begin an item whose tokens come chunk by chunk; raises :class:`MethodError` if a method can't do that."""
        for stage in self._stages:
            if not stage.method.streaming:
                raise MethodError(f"method {stage.method.name!r} needs the whole item; use compress instead of start")
        return Session(self._stages, item_id, views)

    def compress(self, visual: VisualTokens, item_id: str) -> TokenSet:
        """Compress a whole item; for streaming methods equal to pushing it in chunks.

        ``visual.views`` must be the grids that the rows came from. Raises :class:`MethodError` for tokens that are not
        finite, a signal that is missing, or a budget that the item cannot meet.
        """
        check_input(self._stages, visual)
        return with_deepstack(in_turn(visual, [partial(_run, stage, item_id) for stage in self._stages]), visual)


def _run(stage: Stage, item_id: str, visual: VisualTokens) -> TokenSet:
    return stage.method.run(visual, stage.options, item_id)


class Session:
    """One item that is being compressed chunk by chunk."""

    def __init__(self, stages: Sequence[Stage], item_id: str, views: tuple[View, ...]) -> None:
        self._stages = stages
        self._streams: list[Stream] = [stage.method.open(stage.options, views, item_id) for stage in stages]
        self._rows_seen = 0
        self._rows_kept = 0

    def push(self, chunk: VisualTokens) -> TokenSet:
        """Give the kept rows of the next run of whole temporal steps, possibly none.

        ``source`` and ``assignment`` refer to the item: rows pushed before, and rows kept before, are counted in.
        """
        check_input(self._stages, chunk)
        kept = with_deepstack(in_turn(chunk, [stream.push for stream in self._streams]), chunk)
        assignment = kept.assignment
        if assignment is not None:
            assignment = torch.where(assignment >= 0, assignment + self._rows_kept, assignment)
        placed = replace(kept, source=kept.source + self._rows_seen, assignment=assignment)
        self._rows_seen += len(chunk)
        self._rows_kept += len(kept)
        return placed

    def finish(self) -> Stats:
        """Small 1-D arrays about the item, by name."""
        stats: dict[str, npt.NDArray[Any]] = {}
        for stream in self._streams:
            stats.update(stream.finish())
        return stats


def check_input(stages: Sequence[Stage], visual: VisualTokens) -> None:
    """Raise :class:`MethodError` unless all tokens are finite and the wanted signals are there."""
    for stage in stages:
        for signal in sorted(stage.method.signals(stage.options) - visual.signals.keys()):
            raise MethodError(
                f"method {stage.method.name!r} needs the signal {signal!r}, which this vision tower does not give; "
                f"it gives {', '.join(sorted(visual.signals)) or 'none'}"
            )
    if not (stages and stages[0].method.refuses_not_finite):
        refuse_not_finite(visual)


def in_turn(visual: VisualTokens, steps: Iterable[Callable[[VisualTokens], TokenSet]]) -> TokenSet:
    """Give each step what the one before kept; the result is in terms of ``visual``."""
    kept: TokenSet | None = None
    for step in steps:
        kept = step(visual) if kept is None else chain(kept, step(_remaining(visual, kept)), len(visual))
    assert kept is not None
    return kept


def _remaining(visual: VisualTokens, kept: TokenSet) -> VisualTokens:
    return replace(
        visual,
        tokens=kept.tokens,
        coords=kept.coords,
        structural=visual.structural[kept.source],
        signals={name: values[kept.source] for name, values in visual.signals.items()},
    )


def after_tower(reduced: Sequence[Reduced], kept: TokenSet) -> TokenSet:
    """What was kept of an item's tokens that the tower had reduced, run by run, in terms of all rows of these runs."""
    if not reduced:
        return kept
    source, assignments, rows, left = [], [], 0, 0
    for part in reduced:
        source.append(part.source + rows)
        if part.assignment is not None:
            assignments.append(torch.where(part.assignment < 0, -1, part.assignment + left).to(torch.int32))
        rows, left = rows + part.rows, left + len(part)
    first = TokenSet(
        tokens=torch.zeros((left, 0)),
        coords=torch.zeros((left, 4), dtype=torch.int32),
        mass=torch.cat([part.mass for part in reduced]),
        source=torch.cat(source),
        assignment=torch.cat(assignments) if assignments else None,
    )
    return chain(first, kept, rows)


def chain(first: TokenSet, second: TokenSet, rows: int) -> TokenSet:
    """The result of two methods in terms of the ``rows`` rows that the first was given."""
    if second.assignment is None:
        mass = first.mass[second.source] * second.mass
    else:
        used = second.assignment >= 0
        mass = torch.zeros(len(second)).index_add_(0, second.assignment[used].long(), first.mass[used])
    assignment = None
    if first.assignment is not None or second.assignment is not None:
        assignment = _assignment(first, rows)
        used = assignment >= 0
        assignment[used] = _assignment(second, len(first))[assignment[used].long()]
    return replace(
        second,
        mass=mass,
        source=first.source[second.source],
        assignment=assignment,
        stats={**first.stats, **second.stats},
    )


def _assignment(kept: TokenSet, rows: int) -> torch.Tensor:
    """int32 (rows,): where each row went, for selections too; a copy."""
    if kept.assignment is not None:
        return kept.assignment.clone()
    assignment = torch.full((rows,), -1, dtype=torch.int32)
    assignment[kept.source] = torch.arange(len(kept), dtype=torch.int32)
    return assignment
