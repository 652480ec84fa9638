"""What goes with which budget where hubs rank tokens: VFlowOpt's settings for 10, 25 and 50%."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from image_items import kept_of, tiled
from method_items import drifting

from tokcli.ops.hubs import SETTINGS, setting_for
from tokcli.types import VisualTokens


def test_the_settings_of_the_authors() -> None:
    found = [(setting.share, setting.threshold, setting.cell) for setting in SETTINGS]
    assert found == [(0.11662, 39.265, 17.387), (0.26510, 34.760, 15.581), (0.72332, 28.683, 11.757)]
    shares = (0.01, 0.1, 0.11662, 0.19, 0.2, 0.25, 0.49, 0.5, 0.72332, 1.0)
    assert [setting_for(share) for share in shares] == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2]


def loud(visual: VisualTokens) -> VisualTokens:
    """Hubs of each setting that look at other tokens: the first, the last, and those in the middle."""
    rank = torch.arange(len(visual)).float()
    columns = [-rank, rank, -(rank - len(visual) / 2).abs()]
    return replace(visual, signals={**visual.signals, "hub_attention": torch.stack(columns, dim=1)})


@pytest.mark.parametrize("name", ["vflowopt", "fastervlm"])
@pytest.mark.parametrize("setting", [0, 1, 2])
@pytest.mark.parametrize("ceiling", [True, False])
def test_the_hubs_that_go_with_the_budget(name: str, setting: int, ceiling: bool) -> None:
    visual = loud(drifting((1, 10, 10)))
    count = (12, 27, 72)[setting]
    budget: dict[str, Any] = {"max_tokens": count} if ceiling else {"keep": count / 100}
    kept = kept_of(visual, name, {"importance": "hub"}, **budget)
    first = (0, 100 - count, 50 - count // 2)[setting]
    found = kept.source.tolist()
    assert len(found) == count and abs(found[0] - first) <= 1 and found == list(range(found[0], found[0] + count))


@pytest.mark.parametrize("variant", ["official", "fixed"])
def test_the_cells_that_go_with_the_budget(variant: str) -> None:
    visual = loud(tiled(rows=6, columns=6, cut=(0, 0)))
    for keep, cell in ((0.1, 17.387), (0.25, 15.581), (0.5, 11.757)):
        own, named = (
            kept_of(visual, "vflowopt", {"variant": variant, **options}, keep=keep) for options in ({}, {"cell": cell})
        )
        assert torch.equal(own.tokens, named.tokens) and torch.equal(own.source, named.source)
        other = kept_of(visual, "vflowopt", {"variant": variant, "cell": 6}, keep=keep)
        assert not torch.equal(other.source, own.source)
