"""What dycoke, vidcom2, aim, tempme and aot promise beyond the shared properties."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from method_items import anyres, chunk, drifting

from tokcli.errors import MethodError
from tokcli.methods import resolve
from tokcli.ops.matching import Merging, bipartite_matching
from tokcli.ops.pooling import group_means
from tokcli.ops.transport import sinkhorn, transport_over_time
from tokcli.types import TokenSet, VisualTokens


def run(name: str, visual: VisualTokens, *, keep: float | None = None, **options: Any) -> TokenSet:
    return resolve(name, keep=keep, options=options).compress(visual, "item")


def by_step(kept: TokenSet, steps: int) -> list[int]:
    return torch.bincount(kept.coords[:, 1], minlength=steps).tolist()


def test_dycoke_keeps_one_step_of_four_whole() -> None:
    visual = drifting((9, 2, 5))
    assert by_step(run("dycoke", visual), 9) == [10, 3, 3, 3, 10, 3, 3, 3, 10]
    assert by_step(run("dycoke", visual, merging_ratio=0.9), 9) == [10, 1, 1, 1, 10, 1, 1, 1, 10]


def test_dycoke_official_leaves_a_step_whole_loses_the_last_of_an_odd_number_and_a_token_to_rounding() -> None:
    options = {"variant": "official", "merging_ratio": 0.9}
    assert by_step(run("dycoke", drifting((8, 2, 5)), **options), 8) == [10, 0, 0, 0, 10, 0, 10, 0]
    assert by_step(run("dycoke", drifting((9, 2, 5)), **options), 9) == [10, 0, 0, 0, 10, 0, 0, 0, 0]


@pytest.mark.parametrize(("keep", "whole"), [(0.3, [0, 4, 8, 12]), (0.2, [0, 8]), (0.1, [0]), (0.01, [0])])
def test_dycoke_groups_grow_where_whole_steps_are_over_the_budget(keep: float, whole: list[int]) -> None:
    kept = run("dycoke", drifting((16, 4, 5)), keep=keep)
    counts = by_step(kept, 16)
    assert [step for step, count in enumerate(counts) if count == 20] == whole
    assert len(kept) == max(20, round(keep * 320))
    reduced = [count for count in counts if count < 20]
    assert max(reduced) - min(reduced) <= 1, "the others share what is left evenly"


def test_dycoke_with_a_ratio_is_the_same_for_any_chunks_of_any_views() -> None:
    visual = anyres()
    compressor = resolve("dycoke", options={"merging_ratio": 0.5})
    session = compressor.start("item", visual.views)
    rows = [session.push(chunk(visual, *steps)).tokens for steps in pairwise([0, 1, 3, 5])]
    whole = compressor.compress(visual, "item")
    assert {tuple(row.tolist()) for row in torch.cat(rows)} == {tuple(row.tolist()) for row in whole.tokens}


@pytest.mark.parametrize("name", ["dycoke", "aot"])
def test_official_code_without_a_budget_refuses_one(name: str) -> None:
    with pytest.raises(MethodError, match=f"method '{name}': variant='official' knows no"):
        resolve(name, keep=0.5, options={"variant": "official"})


def test_vidcom2_gives_more_to_a_step_that_stands_out_and_something_to_each() -> None:
    visual = drifting((6, 5, 5), seed=3)
    visual.tokens[75:100] = torch.randn(25, 16, generator=torch.Generator().manual_seed(1)) * 5
    visual.tokens[100:] = visual.tokens[:50]
    counts = by_step(run("vidcom2", visual, keep=0.3), 6)
    assert sum(counts) == 45 and min(counts) >= 1
    assert counts[3] == max(counts)
    assert by_step(run("vidcom2", visual, keep=0.01), 6) == [1] * 6


@pytest.mark.parametrize("name", ["aim", "tempme"])
def test_merged_tokens_are_the_mean_of_all_that_went_in(name: str) -> None:
    for visual in (drifting((5, 5, 7)), anyres()):
        kept = run(name, visual, keep=0.3)
        assert kept.assignment is not None
        means, sizes = group_means(visual.tokens, kept.assignment.long(), len(kept))
        torch.testing.assert_close(kept.tokens, means, rtol=1e-4, atol=1e-5)
        assert torch.equal(kept.mass, sizes.float())


def test_aim_halves_every_step_twice() -> None:
    visual = drifting((3, 13, 13))
    assert by_step(run("aim", visual), 3) == [43, 43, 43]
    assert by_step(run("aim", visual, halvings=1), 3) == [85, 85, 85]


def test_tempme_follows_the_schedule_of_the_paper() -> None:
    # 49 - 8 * 2 = 33 a step; 66 - 19 - 4 = 43 in two; 86 - 25 - 6 = 55 in four; 165 - 49 - 11 - 10 = 95 in twelve.
    kept = run("tempme", drifting((24, 7, 7)))
    assert [int((kept.coords[:, 1] // 12 == clip).sum()) for clip in range(2)] == [95, 95]
    assert float(kept.mass.sum()) == 24 * 49


def test_aot_keeps_anchors_of_the_first_step_and_survivors_of_the_others() -> None:
    # 126 of 729 are 25 of 144; of 25 survive those below the 0.3 quantile, ceil(0.3 * 24).
    visual = drifting((5, 12, 12))
    assert by_step(run("aot", visual), 5) == [25, 8, 8, 8, 25]
    assert by_step(run("aot", visual, clip_steps=1), 5) == [25] * 5


def test_aot_assigns_every_token_but_for_those_of_cells_that_the_authors_lose() -> None:
    visual = drifting((5, 9, 9))
    for variant in ("fixed", "paper"):
        kept = run("aot", visual, variant=variant)
        assert float(kept.mass.sum()) == len(visual)
    kept = run("aot", visual, variant="official")
    assert 0 < float(kept.mass.sum()) < len(visual)


def test_aot_official_needs_complete_steps() -> None:
    visual = drifting((2, 4, 4))
    gaps = replace(chunk(visual, 0, 2), structural=torch.arange(32) == 5)
    with pytest.raises(MethodError, match="needs complete steps"):
        run("aot", gaps, variant="official")
    assert len(run("aot", gaps, keep=0.5)) == 16 + 1, "half of the grid, and the structural row"


def test_aot_asks_for_the_signals_of_both_rankings() -> None:
    assert resolve("aot").needs == {"received_attention"}
    both = {"importance": "meanq", "local_importance": "cls"}
    assert resolve("aot", options=both).needs == {"meanq", "cls_attention"}


def test_matching_gives_ties_to_the_lowest_position() -> None:
    tokens = torch.eye(3)[[0, 0, 0, 0, 1, 2]].unsqueeze(0)
    matching = bipartite_matching(tokens, 2)
    assert matching.merged.tolist() == [[0, 2]] and matching.targets.tolist() == [[1, 1]]
    left = Merging.start(tokens).apply(matching, matching.list_order())
    assert left.labels.tolist() == [[0, 0, 0, 1, 2, 3]]
    assert left.anchors.tolist() == [[1, 3, 4, 5]] and left.sizes.tolist() == [[3, 1, 1, 1]]


def test_matching_merges_at_most_the_smaller_half() -> None:
    for first_source, merged in ((0, 2), (1, 2)):
        matching = bipartite_matching(torch.randn(2, 5, 8), 99, first_source)
        assert matching.merged.shape == (2, merged)
        assert matching.list_order().shape == (2, 3)


def test_plans_reach_their_margins_when_the_tolerance_is_relative() -> None:
    kernel = torch.rand(2, 30, 7, generator=torch.Generator().manual_seed(0)) + 0.01
    plan = sinkhorn(kernel, 1000, 1e-6, relative=True)
    torch.testing.assert_close(plan.sum(1), torch.full((2, 7), 1 / 7))
    torch.testing.assert_close(plan.sum(2), torch.full((2, 30), 1 / 30), rtol=1e-4, atol=1e-6)


def test_nothing_is_merged_over_time_when_all_survive() -> None:
    anchors, sources = torch.randn(4, 8), torch.randn(6, 8)
    merged, stays, _ = transport_over_time(anchors, sources, 1, 0.0, kept=6)
    assert bool(stays.all()) and torch.equal(merged, anchors)


def test_thumbnails_and_crops_are_steps_of_their_own() -> None:
    visual = anyres()
    for name in ("vidcom2", "aim", "tempme", "aot"):
        kept = run(name, visual, keep=0.3)
        assert set(kept.coords[:, 0].tolist()) == {0, 1, 2}
        assert len(kept) == round(0.3 * 83) + 2
