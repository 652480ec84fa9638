"""dtd beyond its authors' code: shares, anchors, several views, timelines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_items import anyres, chunk, drifting, video

from tokcli.errors import MethodError
from tokcli.methods import resolve
from tokcli.methods.dtd import trigger_steps
from tokcli.types import TokenSet, VisualTokens


def dtd(visual: VisualTokens, **arguments: Any) -> TokenSet:
    return resolve("dtd", **arguments).compress(visual, "item")


def turning(*degrees: float) -> VisualTokens:
    """A video of one token a step, a unit vector at these angles."""
    angles = torch.deg2rad(torch.tensor(degrees))
    return video(torch.stack([angles.cos(), angles.sin()], dim=1), (len(degrees), 1, 1))


@pytest.mark.parametrize("steps", [1, 2, 7, 16])
@pytest.mark.parametrize("share", [0.03, 0.2, 0.5, 0.81])
def test_a_share_is_met_exactly_and_spread_evenly(steps: int, share: float) -> None:
    places = 24
    kept = dtd(drifting((steps, 4, 6)), keep=share)
    assert len(kept) == max(places, round(share * steps * places))
    later = torch.bincount(kept.coords[:, 1], minlength=steps)[1:]
    assert later.numel() == 0 or int(later.max() - later.min()) <= 1


def test_a_share_keeps_the_least_similar_of_each_step() -> None:
    visual = drifting((6, 4, 6))
    kept = dtd(visual, keep=0.5)
    frames = visual.tokens.view(6, 24, -1).double().numpy()
    for step in range(1, 6):
        now, before = frames[step], frames[step - 1]
        cosines = (now * before).sum(1) / np.linalg.norm(now, axis=1) / np.linalg.norm(before, axis=1)
        chosen = set((kept.source[kept.coords[:, 1] == step] - step * 24).tolist())
        assert chosen == set(np.argsort(cosines)[: len(chosen)].tolist())


def test_a_share_over_several_views_keeps_single_frames_whole() -> None:
    visual = anyres()
    kept = dtd(visual, keep=0.7)
    counts = torch.bincount(kept.coords[:, 0]).tolist()
    assert counts[:2] == [15, 8 + 2]
    assert sum(counts) == round(0.7 * 83) + 2


def test_a_share_over_two_clips_is_spread_over_both() -> None:
    first, second = drifting((3, 2, 4)), drifting((5, 3, 4), seed=1)
    visual = replace(
        first,
        tokens=torch.cat([first.tokens, second.tokens]),
        coords=torch.cat([first.coords, second.coords + torch.tensor([1, 0, 0, 0], dtype=torch.int32)]),
        views=first.views + second.views,
        structural=torch.cat([first.structural, second.structural]),
        signals={},
    )
    kept = dtd(visual, keep=0.5)
    assert len(kept) == round(0.5 * (24 + 60))
    # 20 for the first steps, and 22 for the other 16 + 48 tokens in proportion.
    assert torch.bincount(kept.coords[:, 0]).tolist() == [8 + 5, 12 + 17]


def test_equal_frames_leave_only_the_first() -> None:
    frame = torch.randn(12, 16)
    kept = dtd(video(frame.repeat(6, 1), (6, 3, 4)))
    assert torch.equal(kept.source, torch.arange(12))
    np.testing.assert_array_equal(kept.stats["drop_ratio"], np.ones(5, dtype=np.float32))
    assert kept.stats["trigger_seconds"].size == 0


def test_a_repeated_frame_adds_nothing() -> None:
    visual = drifting((6, 3, 4))
    repeated = visual.tokens.view(6, 12, -1)[[0, 1, 2, 2, 3, 4, 5]]
    assert len(dtd(video(repeated, (7, 3, 4)))) == len(dtd(visual))


def test_scale_and_rotation_of_the_features_change_nothing() -> None:
    visual = drifting((6, 3, 4))
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(3))).Q
    for tokens in (visual.tokens * 7, visual.tokens @ rotation):
        assert torch.equal(dtd(replace(visual, tokens=tokens)).source, dtd(visual).source)


def test_a_zero_vector_resembles_nothing() -> None:
    tokens = torch.tensor([[1.0, 0], [0, 0], [0, 0], [1, 0], [1, 0]])
    assert dtd(video(tokens, (5, 1, 1)), threshold=0.0).source.tolist() == [0, 1, 2, 3]
    assert dtd(video(tokens, (5, 1, 1)), threshold=-0.1).source.tolist() == [0]


def test_a_slow_drift_is_kept_again_only_by_the_anchor() -> None:
    drift = turning(0, 20, 40, 60, 80, 100, 120, 140)
    assert dtd(drift, threshold=0.5).source.tolist() == [0]
    # cos 60 degrees is 0.5: kept at 80, which is 80 from the anchor 0, unless rounding decides at 60.
    assert dtd(drift, threshold=0.45, options={"reference": "kept"}).source.tolist() == [0, 4]


def test_an_object_that_passes_is_dropped_against_the_anchor_only_while_it_looks_alike() -> None:
    passing = turning(0, 90, 0, 0)
    assert dtd(passing).source.tolist() == [0, 1, 2]
    assert dtd(passing, options={"reference": "kept"}).source.tolist() == [0, 1, 2]
    assert dtd(turning(0, 50, 100), options={"reference": "kept"}).source.tolist() == [0, 2]


def test_pixels_decide_with_the_pixel_criterion() -> None:
    tokens = torch.ones(6, 4)
    visual = video(tokens, (3, 1, 2), pixel_change=torch.tensor([0.0, 0.0, 0.3, 0.05, 0.1, 0.09]))
    kept = dtd(visual, options={"criterion": "pixel"})
    assert kept.source.tolist() == [0, 1, 2, 4]
    assert dtd(visual, keep=0.67, options={"criterion": "pixel"}).source.tolist() == [0, 1, 2, 4]


def test_the_signal_is_needed_only_by_the_pixel_criterion() -> None:
    assert resolve("dtd").needs == frozenset()
    pixel = resolve("dtd", options={"criterion": "pixel"})
    assert pixel.needs == {"pixel_change"}
    with pytest.raises(MethodError, match=r"needs the signal 'pixel_change', .* it gives none$"):
        pixel.compress(turning(0, 1), "item")


def test_the_timeline_is_in_seconds_of_the_item() -> None:
    visual = replace(turning(0, 0, 0, 90, 90, 90, 90, 90, 90, 90, 90), seconds_per_step=0.5)
    fixed, official = dtd(visual), dtd(visual, options={"variant": "official"})
    assert fixed.stats["drop_ratio"].tolist() == [1, 1, 0, 1, 1, 1, 1, 1, 1, 1]
    assert fixed.stats["drop_ratio"].dtype == np.float32
    assert fixed.stats["trigger_seconds"].tolist() == [1.5]
    assert official.stats["trigger_seconds"].tolist() == [6.0]
    assert dtd(turning(0), options={"variant": "official"}).stats["trigger_seconds"].size == 0


def test_nothing_that_changes_is_a_trigger_only_officially() -> None:
    still = turning(0, 0, 0)
    assert dtd(still).stats["trigger_seconds"].size == 0
    assert dtd(still, options={"variant": "official"}).stats["trigger_seconds"].tolist() == [2.0]


def test_triggers_below_a_ratio() -> None:
    visual = turning(0, 90, 90, 0, 0, 90)
    assert dtd(visual, options={"trigger_below": "0.5"}).stats["trigger_seconds"].tolist() == [1, 3, 5]


def test_without_seconds_there_are_no_trigger_times() -> None:
    assert "trigger_seconds" not in dtd(replace(turning(0, 90), seconds_per_step=None)).stats


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=40), st.floats(0.01, 1))
def test_triggers_are_the_lowest_and_the_earliest_among_equals(ratios: list[float], share: float) -> None:
    chosen = trigger_steps(np.array(ratios), share).tolist()
    expected = sorted(range(len(ratios)), key=lambda index: (ratios[index], index))[: len(chosen)]
    assert chosen == sorted(expected)
    assert len(chosen) == int(np.ceil(share * len(ratios)))


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0.05, 1), seed=st.integers(0, 50), stop=st.integers(1, 9))
def test_an_item_that_ends_early_has_spent_its_share_so_far(share: float, seed: int, stop: int) -> None:
    visual = drifting((9, 2, 3), seed=seed)
    session = resolve("dtd", keep=share).start("item", visual.views)
    kept = session.push(chunk(visual, 0, stop))
    assert len(kept) <= 6 + (stop - 1) * 6 * share + 1
    assert len(session.finish()["drop_ratio"]) == stop - 1
