"""Selectors: what to keep of an item for one question, once the question is known.

Where a method works when a cache is made, a selector works when it is read, with the prompt beside the tokens::

    @selector("text_cosine", options=TextCosineOptions)
    def text_cosine(visual: VisualTokens, query: Query, options: TextCosineOptions) -> TokenSet: ...

Like a method it is a pure function, and ``tokcli.methods.selectors`` has the line that registers it. Other packages
offer theirs by the entry point ``tokcli.selectors``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from tokcli.errors import MethodError
from tokcli.methods.budget import budgets_of
from tokcli.methods.deepstack import with_deepstack
from tokcli.methods.options import Options, parse_options
from tokcli.registry import Registry
from tokcli.types import TokenSet, VisualTokens


@dataclass(frozen=True)
class Query:
    """A question, as a selector sees it."""

    embeddings: torch.Tensor
    """Float32 (Q, D): the language model's input embeddings of the question's own text, without any template."""


@dataclass(frozen=True, eq=False)
class Selector:
    """A registered selector."""

    name: str
    description: str
    """The docstring; its first line is the summary."""
    function: Callable[..., TokenSet]
    options: type[Options]
    paper: str


SELECTORS: Registry[Selector] = Registry("selector", MethodError, group="tokcli.selectors", of=Selector)


def selector(name: str, *, options: type[Options], paper: str = "") -> Callable[[Callable[..., TokenSet]], Selector]:
    """Make a :class:`Selector` of the decorated function."""

    def wrap(function: Callable[..., TokenSet]) -> Selector:
        return Selector(name, inspect.getdoc(function) or name, function, options, paper)

    return wrap


@dataclass(frozen=True)
class Selection:
    """A selector with its options."""

    selector: Selector
    options: Options

    def run(self, visual: VisualTokens, query: Query) -> TokenSet:
        """What is kept of ``visual`` for ``query``. Raises ``MethodError`` for a budget that the item can't meet."""
        if visual.tokens.shape[1] != query.embeddings.shape[1]:
            raise MethodError(
                f"selector {self.selector.name!r}: the tokens have width {visual.tokens.shape[1]}, the text "
                f"{query.embeddings.shape[1]}; use the model that made the cache"
            )
        return with_deepstack(self.selector.function(visual, query, self.options), visual)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.selector.name, "options": self.options.model_dump(mode="json")}


def resolve_selector(name: str, *, keep: float | None, max_tokens: int | None, options: Mapping[str, Any]) -> Selection:
    """From ``--select text_cosine --keep 0.1`` to a selection.

    Raises :class:`MethodError` for an unknown selector or option, or a value that is not allowed.
    """
    found = SELECTORS.get(name)
    budgets = {key: value for key, value in (("keep", keep), ("max_tokens", max_tokens)) if value is not None}
    for budget in budgets:
        if budget not in budgets_of(found.options):
            raise MethodError(f"selector {name!r} cannot be given {budget}")
    return Selection(found, parse_options(name, found.options, {**options, **budgets}))
