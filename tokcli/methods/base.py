"""What a method is: a name, options, and a pure function of tokens (or a stream of them).

A method that needs the whole item is a function of the tokens::

    @method("evs", options=EvsOptions, paper="arXiv:2510.14624", kind="select", count="exact")
    def evs(visual: VisualTokens, options: EvsOptions) -> TokenSet: ...

A method that can work on one run of temporal steps after another opens a stream instead::

    @method("dtd", options=DtdOptions, paper="arXiv:2504.17343", kind="select", count="by content", streaming=True)
    def dtd(options: DtdOptions, views: tuple[View, ...]) -> Stream: ...

A method inside the vision tower says what it does there::

    @method("tome", options=TomeOptions, paper="arXiv:2210.09461", kind="merge", count="by the encoder", where=in_tower)
    def tome(options: TomeOptions) -> InTower: ...

With options that derive from ``SeededOptions`` the function takes a numpy ``Generator`` as its last argument.
``tokcli.methods.catalog`` has the line that registers a method; the shared tests then cover it without further ado.
"""

from __future__ import annotations

import inspect
import json
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args, get_origin

import numpy as np
import numpy.typing as npt

from tokcli.errors import MethodError
from tokcli.methods.budget import budgets_of
from tokcli.methods.options import Options, SeededOptions, option_pages, parse_options
from tokcli.ops.reducing import InTower
from tokcli.registry import Registry
from tokcli.types import TokenSet, View, VisualTokens

Kind = Literal["select", "merge"]
Count = Literal["exact", "at most", "by content", "by the encoder"]
Where = Literal["pixels", "tower", "tokens"]
Stats = Mapping[str, npt.NDArray[Any]]


class Stream(Protocol):
    """State of a streaming method over one item."""

    def push(self, chunk: VisualTokens) -> TokenSet:
        """Give what is kept of the next run of whole temporal steps; ``source`` counts from the chunk's first row."""

    def finish(self) -> Stats:
        """Small 1-D arrays about the whole item."""


def _unscaled(_options: Options) -> float:
    return 1.0


def _none_more(_options: Options) -> Collection[str]:
    return ()


def _on_tokens(_options: Options) -> Where:
    return "tokens"


@dataclass(frozen=True)
class FrameChoice:
    """A choice among the frames of a clip, made before the vision tower: the others are never encoded."""

    features: str
    """What frames are described by: ``pixels``, ``preview`` or an image model."""
    choose: Callable[[npt.NDArray[np.float32], View], npt.NDArray[np.int64]]
    """From (T, D) features, a row for each temporal step, and the clip's view: the chosen steps, ascending."""


def in_tower(_options: Options) -> Where:
    """For ``where`` of methods that work inside the vision tower."""
    return "tower"


def _no_frame_choice(_options: Options) -> FrameChoice | None:
    return None


@dataclass(frozen=True, eq=False)
class Method:
    """A registered method and all that its page tells."""

    name: str
    description: str
    """The docstring; its first line is the summary."""
    function: Callable[..., Any]
    options: type[Options]
    paper: str
    kind: Kind
    """Whether kept rows are source rows, or new ones made of several."""
    count: Count
    """What a budget of K tokens gives: K, at most K, what the content asks for, or what the encoder makes of it."""
    streaming: bool = False
    needs: frozenset[str] = frozenset()
    """Signals that the vision tower must give beside the tokens."""
    needs_if: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)
    """Signals that only some options need."""
    needs_from: Callable[[Any], Collection[str]] = _none_more
    """Signals that the options name themselves."""
    variants: Mapping[str, str] = field(default_factory=dict)
    """What 'official' repeats and 'fixed' does instead, for options with a variant."""
    pixel_scale: Callable[[Any], float] = _unscaled
    """Area of the frames given to the vision tower, as a share of what it would take by itself."""
    where: Callable[[Any], Where] = _on_tokens
    """What it works on: "tokens" after the tower, or "pixels" before it, or "tower" inside. Only what works on tokens
    can be run on those of a cache."""
    frame_choice: Callable[[Any], FrameChoice | None] = _no_frame_choice
    """How it chooses frames before the tower; None where it does not."""
    refuses_not_finite: bool = False
    """Whether it calls ``finite.refuse_not_finite`` by itself, having seen in a pass of its own that it must."""
    golden: tuple[str, ...] = ()
    """Folders of golden cases, the outputs of the authors' own code, that tests compare it with."""
    code: str = ""
    """Repository and commit of the authors' code that the definition was checked against."""
    licence: str = ""
    """Licence of that code; nothing of it is in this package."""
    experimental: str = ""
    """Why its results may not be the authors', where they published no code to compare with; empty for others."""

    def parse(self, values: Mapping[str, Any]) -> Options:
        return parse_options(self.name, self.options, values)

    def signals(self, options: Options) -> frozenset[str]:
        """Signals wanted with these options."""
        named = self.needs_from(options)
        return self.needs.union(named, (name for name, wanted in self.needs_if.items() if wanted(options)))

    def inside(self, options: Options) -> InTower:
        """What it does inside the vision tower; only for methods that work there."""
        inside: InTower = self.function(options)
        return inside

    def open(self, options: Options, views: tuple[View, ...], item_id: str) -> Stream:
        """Start a stream over one item; only for streaming methods."""
        if self.where(options) == "tower":
            raise MethodError(
                f"method {self.name!r} works inside the vision tower, and these are tokens; "
                f"use `tokcli compress --method {self.name}` on the media"
            )
        stream: Stream = self.function(options, views, *self._random(options, item_id))
        return stream

    def run(self, visual: VisualTokens, options: Options, item_id: str) -> TokenSet:
        """Compress a whole item."""
        if not self.streaming:
            whole: TokenSet = self.function(visual, options, *self._random(options, item_id))
            return whole
        stream = self.open(options, visual.views, item_id)
        kept = stream.push(visual)
        return TokenSet(kept.tokens, kept.coords, kept.mass, kept.source, kept.assignment, stream.finish())

    def _random(self, options: Options, item_id: str) -> tuple[np.random.Generator, ...]:
        if not isinstance(options, SeededOptions):
            return ()
        # By item, so that results do not depend on the order of the items or on who works on them.
        return (np.random.Generator(np.random.PCG64(options.seed ^ zlib.crc32(item_id.encode()))),)

    def page(self) -> dict[str, Any]:
        """Everything about the method as JSON. ``needs`` and ``where`` are those of the default options."""
        defaults = self.options.model_construct()
        needed = self.signals(defaults)
        return {
            "name": self.name,
            "summary": self.description.splitlines()[0],
            "description": self.description,
            "paper": self.paper,
            "code": self.code,
            "licence": self.licence,
            "experimental": self.experimental,
            "kind": self.kind,
            "count": self.count,
            "streaming": self.streaming,
            "seeded": issubclass(self.options, SeededOptions),
            "where": self.where(defaults),
            "needs": ["tokens", *sorted(needed)],
            "may_need": sorted(self._possible_signals() - needed),
            "budgets": list(budgets_of(self.options)),
            "variants": dict(self.variants),
            "golden": list(self.golden),
            "options": option_pages(self.options),
            "recipe": self.recipe(),
        }

    def _possible_signals(self) -> frozenset[str]:
        """Signals wanted with any single choice among those that the options offer."""
        choices = [
            (name, choice)
            for name, field in self.options.model_fields.items()
            if get_origin(field.annotation) is Literal
            for choice in get_args(field.annotation)
        ]
        wanted = (self.signals(self.options.model_construct(**{name: choice})) for name, choice in choices)
        return frozenset(self.needs_if).union(*wanted)

    def recipe(self) -> str:
        """A recipe to start from, as `tokcli run` reads it."""
        budgets = {"keep": "0.25", "max_tokens": "512"}
        budget = next((name for name in budgets if name in budgets_of(self.options)), None)
        summary = json.dumps(self.description.splitlines()[0], ensure_ascii=False)
        lines = [f"description: {summary}", "compress:", "  inputs: [videos]"]
        lines += ["  output: cache", f"  method: {self.name}"]
        return "\n".join([*lines, *([f"  {budget}: {budgets[budget]}"] if budget else [])]) + "\n"


METHODS: Registry[Method] = Registry("method", MethodError, group="tokcli.methods", of=Method)


def method(
    name: str,
    *,
    options: type[Options],
    kind: Kind,
    count: Count,
    paper: str = "",
    streaming: bool = False,
    needs: Collection[str] = (),
    needs_if: Mapping[str, Callable[[Any], bool]] | None = None,
    needs_from: Callable[[Any], Collection[str]] = _none_more,
    variants: Mapping[str, str] | None = None,
    pixel_scale: Callable[[Any], float] = _unscaled,
    where: Callable[[Any], Where] = _on_tokens,
    frame_choice: Callable[[Any], FrameChoice | None] = _no_frame_choice,
    refuses_not_finite: bool = False,
    golden: Collection[str] = (),
    code: str = "",
    licence: str = "",
    experimental: str = "",
) -> Callable[[Callable[..., Any]], Method]:
    """Make a :class:`Method` of the decorated function; its docstring becomes the method's page."""

    def wrap(function: Callable[..., Any]) -> Method:
        return Method(
            name=name,
            description=inspect.getdoc(function) or name,
            function=function,
            options=options,
            kind=kind,
            count=count,
            paper=paper,
            streaming=streaming,
            needs=frozenset(needs) - {"tokens"},
            needs_if=needs_if or {},
            needs_from=needs_from,
            variants=variants or {},
            pixel_scale=pixel_scale,
            where=where,
            frame_choice=frame_choice,
            refuses_not_finite=refuses_not_finite,
            golden=tuple(golden),
            code=code,
            licence=licence,
            experimental=experimental,
        )

    return wrap
