"""Methods in a row: provenance, gaps, budgets, sessions, descriptions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from method_items import chunk, drifting, video

from tokcli.errors import MethodError
from tokcli.methods import Compressor, resolve
from tokcli.methods.layout import blocks


def test_selections_in_a_row_point_at_the_item() -> None:
    visual = video(torch.randn(12, 4), (12, 1, 1))
    kept = resolve("uniform,random", max_tokens=2, options={"uniform.max_tokens": 4}).compress(visual, "item")
    assert set(kept.source.tolist()) < {0, 3, 6, 9}
    assert kept.assignment is None


def test_merging_after_a_selection_by_hand() -> None:
    visual = video(torch.arange(16.0).view(8, 2), (2, 2, 2))
    kept = resolve("uniform,pool2d", max_tokens=2, options={"uniform.max_tokens": 4}).compress(visual, "item")
    # uniform leaves rows 0, 2, 4, 6: the left column of both frames, which pool2d averages.
    assert kept.tokens.tolist() == [[2, 3], [10, 11]]
    assert kept.source.tolist() == [0, 4]
    assert kept.mass.tolist() == [2, 2]
    assert kept.assignment is not None
    assert kept.assignment.tolist() == [0, -1, 0, -1, 1, -1, 1, -1]


def test_a_selection_after_merging_by_hand() -> None:
    visual = video(torch.arange(16.0).view(8, 2), (2, 2, 2))
    kept = resolve("pool2d,uniform", max_tokens=1, options={"pool2d.keep": 0.25}).compress(visual, "item")
    assert kept.tokens.tolist() == [[3, 4]]
    assert kept.mass.tolist() == [4]
    assert kept.assignment is not None
    assert kept.assignment.tolist() == [0, 0, 0, 0, -1, -1, -1, -1]


def test_the_budget_is_a_share_of_the_item_and_goes_to_the_last() -> None:
    visual = drifting((8, 4, 6))
    kept = resolve("dtd,uniform", keep=0.1, options={"dtd.threshold": 0.9}).compress(visual, "item")
    assert len(kept) == round(0.1 * len(visual))
    assert kept.stats.keys() == {"drop_ratio", "trigger_seconds"}


@pytest.mark.parametrize(("name", "budget"), [("dtd", {"threshold": -0.5}), ("evs", {"max_tokens": 3})])
def test_a_token_whose_place_was_empty_before_counts_as_new(name: str, budget: dict[str, float]) -> None:
    # Three steps of two places; uniform leaves 0, 1 / 3 / 4. Row 3 is at 100 degrees to row 1.
    # Row 4 has no row 2 before it, and counts as more unlike than that.
    visual = video(torch.tensor([[1.0, 0], [0, 1], [9, 9], [1, -0.17], [1, 0], [9, 9]]), (3, 1, 2))
    kept = resolve(f"uniform,{name}", options={"uniform.max_tokens": 4}, **budget).compress(visual, "item")
    assert kept.source.tolist() == [0, 1, 4]


@pytest.mark.parametrize("reference", ["previous", "kept"])
@pytest.mark.parametrize("threshold", [0.5, -0.5])
def test_gaps_at_the_edges_of_chunks(reference: str, threshold: float) -> None:
    visual = drifting((8, 3, 4))
    some = torch.rand(len(visual), generator=torch.Generator().manual_seed(5)) < 0.6
    gappy = replace(
        visual,
        tokens=visual.tokens[some],
        coords=visual.coords[some],
        structural=visual.structural[some],
        signals={},
    )
    compressor = resolve("dtd", threshold=threshold, options={"reference": reference})
    session = compressor.start("item", visual.views)
    parts = [session.push(chunk(gappy, start, start + 1)) for start in range(8)]
    assert torch.equal(torch.cat([part.source for part in parts]), compressor.compress(gappy, "item").source)


def test_rows_with_gaps_as_frames() -> None:
    visual = video(torch.arange(1.0, 13).view(12, 1), (3, 2, 2))
    some = torch.tensor([0, 1, 3, 8, 11])
    gappy = replace(visual, tokens=visual.tokens[some], coords=visual.coords[some], structural=visual.structural[some])
    (block,) = blocks(gappy)
    assert block.steps.tolist() == [0, 2]
    assert block.rows.tolist() == [[0, 1, -1, 2], [3, -1, -1, 4]]
    assert block.gather(gappy.tokens).squeeze(2).tolist() == [[1, 2, 0, 4], [9, 0, 0, 12]]
    assert not block.complete and blocks(visual)[0].complete


def test_frames_that_are_gone_are_not_compared_with() -> None:
    angles = torch.deg2rad(torch.tensor([0.0, 90, 10, 90, 80, 90]))
    visual = video(torch.stack([angles.cos(), angles.sin()], 1), (6, 1, 1))
    kept = resolve("uniform,dtd", options={"uniform.max_tokens": 3}).compress(visual, "item")
    assert kept.source.tolist() == [0, 4], "steps 0, 2 and 4 are left, and 2 looks like 0"
    assert kept.stats["drop_ratio"].tolist() == [1, 0]
    assert kept.stats["trigger_seconds"].tolist() == [4.0]


def test_streams_in_a_row_equal_the_whole() -> None:
    visual = drifting((9, 3, 4))
    compressor = resolve("downsample,dtd,none", options={"downsample.keep": 0.5, "dtd.keep": 0.4})
    whole = compressor.compress(visual, "item")
    session = compressor.start("item", visual.views)
    parts = [session.push(chunk(visual, start, start + 2)) for start in range(0, 9, 2)]
    assert torch.equal(torch.cat([part.source for part in parts]), whole.source)
    assert session.finish()["drop_ratio"].tolist() == whole.stats["drop_ratio"].tolist()


def test_one_method_that_needs_the_whole_makes_all_whole() -> None:
    compressor = resolve("dtd,evs")
    assert not compressor.streaming and resolve("none,dtd").streaming
    with pytest.raises(MethodError, match="method 'evs' needs the whole item"):
        compressor.start("item", ())


def test_names_needs_and_equality() -> None:
    compressor = resolve("dtd, evs", options={"criterion": "pixel", "evs.variant": "official"})
    assert compressor.name == "dtd,evs"
    assert compressor.needs == {"pixel_change"}
    assert compressor != resolve("dtd,evs", options={"criterion": "pixel"})
    assert compressor != "dtd,evs"
    assert "pixel" in repr(compressor)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({}, "not the description of a method"),
        ({"methods": ["dtd"]}, "not the description of a method"),
        ({"methods": [{"name": "gone", "options": {}}]}, "unknown method 'gone'"),
        ({"methods": [{"name": "dtd", "options": {"gone": 1}}]}, "unknown option 'gone'"),
    ],
)
def test_a_description_that_cannot_be_read(description: dict[str, object], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        Compressor.from_json(description)
