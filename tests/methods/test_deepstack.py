"""DeepStack levels stay with their tokens, whatever a method does, and change nothing that it does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from method_items import assert_same, chunk, configured, drifting, token_methods

from tokcli.methods import resolve
from tokcli.types import TokenSet, VisualTokens

LEVELS = 2


def stacked(visual: VisualTokens) -> VisualTokens:
    levels = torch.randn(len(visual), LEVELS, visual.tokens.shape[1], generator=torch.Generator().manual_seed(3))
    return replace(visual, signals={**visual.signals, "deepstack": levels})


def expected(kept: TokenSet, levels: torch.Tensor) -> torch.Tensor:
    """By the definition, one kept row after another."""
    if kept.assignment is None:
        return levels[kept.source]
    return torch.stack([levels[kept.assignment == row].mean(dim=0) for row in range(len(kept))])


@pytest.mark.parametrize("name", token_methods())
def test_levels_follow_the_tokens(name: str) -> None:
    plain = drifting((4, 4, 6))
    visual = stacked(plain)
    compressor = configured(name, {}, 0.4, visual)
    kept, without = (compressor.compress(tokens, "item") for tokens in (visual, plain))
    assert kept.deepstack is not None and without.deepstack is None
    assert_same(kept, without)
    torch.testing.assert_close(kept.deepstack, expected(kept, visual.signals["deepstack"]), rtol=0, atol=1e-6)


def test_levels_follow_through_a_composition() -> None:
    visual = stacked(drifting((4, 4, 6)))
    kept = resolve("dtd,pool2d", max_tokens=24, options={"dtd.threshold": "0.9"}).compress(visual, "item")
    assert kept.assignment is not None and kept.deepstack is not None
    torch.testing.assert_close(kept.deepstack, expected(kept, visual.signals["deepstack"]), rtol=0, atol=1e-6)


def test_levels_come_chunk_by_chunk() -> None:
    visual = stacked(drifting((6, 4, 6)))
    compressor = resolve("dtd", threshold=0.3)
    stream = compressor.start("item", visual.views)
    parts = [stream.push(chunk(visual, start, start + 2)).deepstack for start in (0, 2, 4)]
    whole = compressor.compress(visual, "item").deepstack
    assert whole is not None
    assert torch.equal(torch.cat([part for part in parts if part is not None]), whole)


def test_levels_keep_their_dtype() -> None:
    visual = stacked(drifting((2, 4, 4)))
    half = replace(
        visual,
        tokens=visual.tokens.bfloat16(),
        signals={**visual.signals, "deepstack": visual.signals["deepstack"].bfloat16()},
    )
    for name, options in (("uniform", {"keep": 0.5}), ("pool2d", {"keep": 0.5})):
        kept = resolve(name, keep=options["keep"]).compress(half, "item")
        assert kept.deepstack is not None and kept.deepstack.dtype == torch.bfloat16
