"""Selectors: the baseline by hand, what is refused, and one of another package."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest
import torch
from method_items import drifting, video

import tokcli.registry
from tokcli.errors import MethodError
from tokcli.methods import SELECTORS, Query, resolve_selector
from tokcli.methods.budget import SizeBudget
from tokcli.methods.deepstack import DEEPSTACK
from tokcli.methods.guided import selector
from tokcli.methods.output import select
from tokcli.types import TokenSet, VisualTokens

WORDS = Query(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
# Cosines with the two words: (1, 0), (0, 1), (0.6, 0.8), (-1, 0), (0.8, 0.6), no direction at all.
ROWS = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-2.0, 0.0], [4.0, 3.0], [0.0, 0.0]])


class FirstOptions(SizeBudget):
    pass


@selector("first", options=FirstOptions)
def first(visual: VisualTokens, query: Query, options: FirstOptions) -> TokenSet:
    """Keep as many of the first tokens as there are words."""
    return select(visual, torch.arange(len(visual)) < len(query.embeddings))


def test_text_cosine_by_hand() -> None:
    visual = video(ROWS, (1, 2, 3))
    for over, kept in (("mean", [2, 4]), ("max", [0, 1])):
        found = resolve_selector("text_cosine", keep=None, max_tokens=2, options={"over": over}).run(visual, WORDS)
        assert found.source.tolist() == kept
        assert torch.equal(found.tokens, ROWS[kept])
    third = resolve_selector("text_cosine", keep=0.5, max_tokens=None, options={}).run(visual, WORDS)
    assert third.source.tolist() == [0, 2, 4]  # 0 and 1 are equal: the earlier one


def test_structural_rows_and_levels_stay_with_their_tokens() -> None:
    levels = torch.arange(6.0)[:, None, None].expand(6, 2, 2)
    flags = torch.tensor([False, False, False, True, False, False])
    visual = replace(video(ROWS, (1, 2, 3)), structural=flags, signals={DEEPSTACK: levels})
    found = resolve_selector("text_cosine", keep=None, max_tokens=2, options={}).run(visual, WORDS)
    assert found.source.tolist() == [2, 3]
    assert found.deepstack is not None
    assert torch.equal(found.deepstack, levels[[2, 3]])


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(MethodError, match="unknown selector 'text_cosin'; known: text_cosine; did you mean"):
        resolve_selector("text_cosin", keep=0.1, max_tokens=None, options={})
    with pytest.raises(MethodError, match="needs a budget"):
        resolve_selector("text_cosine", keep=None, max_tokens=None, options={})
    with pytest.raises(MethodError, match="unknown option 'under'"):
        resolve_selector("text_cosine", keep=0.1, max_tokens=None, options={"under": "mean"})
    selection = resolve_selector("text_cosine", keep=0.1, max_tokens=None, options={})
    with pytest.raises(MethodError, match="tokens have width 16, the text 2"):
        selection.run(drifting((2, 2, 2)), WORDS)


def test_other_packages_bring_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint(name="first", value=f"{__name__}:first", group="tokcli.selectors")
    monkeypatch.setattr(tokcli.registry, "entry_points", lambda group: [entry] if group == entry.group else [])
    monkeypatch.setattr(SELECTORS, "_loaded", SELECTORS.loaded())
    found = resolve_selector("first", keep=None, max_tokens=None, options={}).run(video(ROWS, (1, 2, 3)), WORDS)
    assert found.source.tolist() == [0, 1]
