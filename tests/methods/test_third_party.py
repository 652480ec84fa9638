"""A method of another package, found by its entry point: what adding a method takes."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest
import torch
from method_items import drifting
from pydantic import Field

import tokcli.registry
from tokcli.errors import MethodError
from tokcli.methods import METHODS, Compressor, describe, method, method_names, resolve
from tokcli.methods.budget import SizeBudget, rows_to_keep
from tokcli.methods.output import select
from tokcli.ops.selection import top_k_mask
from tokcli.types import TokenSet, VisualTokens


class LongestOptions(SizeBudget):
    order: float = Field(default=2.0, gt=0, description="Order of the norm.")


@method("longest", options=LongestOptions, kind="select", count="exact")
def longest(visual: VisualTokens, options: LongestOptions) -> TokenSet:
    """Keep the longest tokens.

    A sanity check.
    """
    scores = torch.linalg.vector_norm(visual.tokens.float(), ord=options.order, dim=1)
    return select(visual, top_k_mask(scores, rows_to_keep("longest", options, visual)))


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint(name="longest", value=f"{__name__}:longest", group="tokcli.methods")
    monkeypatch.setattr(tokcli.registry, "entry_points", lambda group: [entry] if group == entry.group else [])
    monkeypatch.setattr(METHODS, "_loaded", METHODS.loaded())


def test_it_is_listed_described_and_used_like_any_other() -> None:
    assert method_names()[-1] == "longest"
    assert describe("longest")["summary"] == "Keep the longest tokens."
    compressor = resolve("longest", keep=0.25, options={"order": "1"})
    assert Compressor.from_json(compressor.to_json()) == compressor
    visual = drifting((4, 2, 5))
    expected = visual.tokens.abs().sum(1).sort(descending=True, stable=True).indices[:10]
    assert compressor.compress(visual, "item").source.tolist() == sorted(expected.tolist())


def test_its_options_are_checked_like_any_other() -> None:
    with pytest.raises(MethodError, match=r"order='0' is not allowed; order must be a number above 0$"):
        resolve("longest", options={"order": "0"})
