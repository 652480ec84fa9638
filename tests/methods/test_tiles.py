"""How stills with tiles are taken apart, and where the budgets of the methods that know tiles go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from image_items import filled, kept_of, tiled
from method_items import drifting, still

from tokcli.methods.tiles import region_sums, tiled_steps
from tokcli.types import TokenSet, VisualTokens


def test_tiles_of_a_canvas_without_its_padding() -> None:
    visual = tiled()
    (step,) = tiled_steps(visual)
    assert (step.index, step.arrangement, step.canvas) == (-1, (2, 3), (6, 12))
    assert step.thumbnail is not None and len(step.thumbnail.rows) == 16
    assert [(tile.at, len(tile.rows)) for tile in step.parts] == [((r, c), 12) for r in range(2) for c in range(3)]
    for tile in step.parts:
        # One row of each upper tile was cut off above, one of each lower tile below.
        spots = visual.coords[tile.rows, 2:].long()
        assert torch.equal(tile.spots, spots)
        assert torch.equal(tile.places, spots + torch.tensor([1, 0]) - 4 * torch.tensor(tile.at))
    assert sorted(step.rows.tolist()) == torch.nonzero(~visual.structural).flatten().tolist()


def test_tiles_that_are_views_stand_in_rows_wider_than_high() -> None:
    visual = filled(still(np.zeros((7 * 6, 1)), [(2, 3)] * 7, ["crop"] * 6 + ["thumbnail"]))
    (step,) = tiled_steps(visual)
    assert (step.arrangement, step.canvas) == ((2, 3), (4, 9))
    assert [tile.rows[0].item() for tile in step.parts] == [0, 6, 12, 18, 24, 30]
    assert step.parts[4].at == (1, 1) and step.parts[4].spots[0].tolist() == [2, 3]


def test_regions_of_the_thumbnail() -> None:
    visual = tiled(cut=(0, 0))
    (step,) = tiled_steps(visual)
    assert step.thumbnail is not None
    # 4 places fall to 3 columns as 1, 1 and 2.
    assert region_sums(step, step.thumbnail, torch.ones(16)).tolist() == [2, 2, 4, 2, 2, 4]


@pytest.mark.parametrize(
    ("name", "signals"), [("hired", ["received_layers", "received_attention"]), ("globalcom2", ["received_attention"])]
)
def test_tiles_get_what_their_region_of_the_thumbnail_draws(name: str, signals: list[str]) -> None:
    visual = tiled(rows=2, columns=2, cut=(0, 0))
    # All attention in the lower right quarter of the thumbnail.
    quarter = (visual.coords[:, 0] == 0) & (visual.coords[:, 2] >= 2) & (visual.coords[:, 3] >= 2)
    loud = {signal: visual.signals[signal].clone() for signal in signals}
    for values in loud.values():
        values[visual.coords[:, 0] == 0] = 0
        values[quarter] = 10
    visual = replace(visual, signals={**visual.signals, **loud})
    counts = tile_counts(kept_of(visual, name, {}, keep=0.3), visual)
    assert sum(counts) == round(0.3 * 80)
    assert counts[4] > max(counts[1:4])
    # With as many as that its tile is full, and the others get the rest.
    counts = tile_counts(kept_of(visual, name, {}, keep=0.7), visual)
    assert sum(counts) == 56
    assert counts[4] == 16 and min(counts[1:4]) > 0


def tile_counts(kept: TokenSet, visual: VisualTokens) -> list[int]:
    """Tokens kept of the thumbnail and of each tile, newlines not counted."""
    rows = set(kept.source.tolist())
    (step,) = tiled_steps(visual)
    return [len(rows & set(tile.rows.tolist())) for tile in step.tiles]


def test_hired_gives_the_thumbnail_its_share() -> None:
    visual = tiled(cut=(0, 0))
    assert tile_counts(kept_of(visual, "hired", {"alpha": 0.5}, keep=0.2), visual)[0] == 11
    assert tile_counts(kept_of(visual, "hired", {"alpha": 1.0}, keep=0.1), visual)[0] == 11
    # There are no more than 16, and the tiles get the rest.
    counts = tile_counts(kept_of(visual, "hired", {"alpha": 1.0}, keep=0.5), visual)
    assert counts[0] == 16 and sum(counts) == 56


def test_holov_fills_all_of_its_budget_where_one_region_has_all_attention() -> None:
    visual = filled(still(np.zeros((64, 1)), [(8, 8)]))
    attention = torch.zeros(64)
    corner = (visual.coords[:, 2] < 4) & (visual.coords[:, 3] < 4)
    attention[corner] = 1
    visual = replace(visual, signals={**visual.signals, "received_attention": attention})
    kept = kept_of(visual, "holov", {"crops": 4}, max_tokens=16)
    assert torch.equal(kept.source, torch.nonzero(corner).flatten())
    assert len(kept_of(visual, "holov", {"crops": 4}, max_tokens=30)) == 30
    # The authors' regions are strips, and what the first cannot take is lost.
    strip = replace(visual, signals={**visual.signals, "received_attention": (torch.arange(64) < 16).float()})
    kept = kept_of(strip, "holov", {"crops": 4, "variant": "official"}, max_tokens=30)
    assert kept.source.tolist() == list(range(16))


@pytest.mark.parametrize("cell", [1.0, 2.5, 17.387])
def test_vflowopt_meets_every_budget_and_loses_no_token(cell: float) -> None:
    visual = tiled()
    visual = replace(visual, signals={**visual.signals, "hub_attention": torch.rand(len(visual), 1).expand(-1, 3)})
    total, newlines = len(visual), int(visual.structural.sum())
    for count in range(newlines + 1, total + 1, 3):
        kept = kept_of(visual, "vflowopt", {"cell": cell}, max_tokens=count)
        assert len(kept) == count
        if cell == 17.387 and count > newlines + 2:
            assert kept.mass.sum() == total
            # A cell of each view: what goes from it is a mean weighted by importance, where the most important was.
            merged = torch.nonzero(kept.mass > 1).flatten().tolist()
            for row in merged:
                members = torch.nonzero(kept.assignment == row).flatten()
                weights = visual.signals["hub_attention"][members, 0]
                assert kept.source[row] == members[weights.argmax()]
                expected = (weights[:, None] * visual.tokens[members]).sum(dim=0) / weights.sum()
                torch.testing.assert_close(kept.tokens[row], expected, atol=1e-5, rtol=0)


def test_vflowopt_keeps_the_best_of_all_frames_together() -> None:
    visual = drifting((6, 4, 4))
    kept = kept_of(visual, "vflowopt", {"importance": "recv"}, keep=0.25)
    best = visual.signals["received_attention"].argsort(descending=True)[:24]
    assert torch.equal(kept.source, best.sort().values)
