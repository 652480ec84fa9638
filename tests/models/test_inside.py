"""Methods inside a tower, on towers of all kinds that can be reduced in: what tests/methods holds of the others.

A plan without steps is the plain tower; what is left tells where it came from; nothing depends on how a clip is cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from inside_tower import EXACT, FRAMES, NAMES, NOTHING, clip_of, encoded, every, plain, usable
from tiny_checkpoints import make_info, make_pixels

from tokcli.methods import METHODS, resolve
from tokcli.methods.compose import after_tower
from tokcli.models import VisionTower
from tokcli.types import Reduced, TokenSet, VisualTokens


def test_methods_are_found() -> None:
    assert NAMES == ["tome", "auroracap", "turbo", "mctf", "pumer", "evit", "flowcut", "mustdrop"]


@pytest.mark.parametrize("name", NAMES)
def test_with_nothing_to_take_away_it_is_the_plain_tower(tower: VisionTower, name: str) -> None:
    options = NOTHING.get(name, {"keep": 1.0})
    (visual,), expected = encoded(tower, resolve(name, options=options), [FRAMES]), plain(tower)
    if tower.identity["family"] in EXACT:
        assert torch.equal(visual.tokens, expected.tokens)
    else:
        # Patches stand square by square here and line by line there, so sums run in another order.
        assert torch.allclose(visual.tokens, expected.tokens, rtol=0, atol=2e-5)
    assert torch.equal(visual.coords, expected.coords)
    assert visual.reduced is not None and torch.equal(visual.reduced.mass, torch.ones(len(expected)))


@every
def test_what_is_left_tells_where_it_came_from(tower: VisionTower, name: str, options: Mapping[str, Any]) -> None:
    (visual,), whole = encoded(tower, usable(tower, name, options), [FRAMES]), plain(tower)
    reduced = visual.reduced
    assert reduced is not None and reduced.rows == len(whole) and 0 < len(visual) <= len(whole)
    assert bool((reduced.source.diff() > 0).all())
    assert torch.equal(visual.coords, whole.coords[reduced.source])
    marked = {"protected"} if name == "mustdrop" else set[str]()
    assert visual.signals.keys() == ({"pixel_change"} & tower.signals) | marked and bool(
        torch.isfinite(visual.tokens).all()
    )
    # Frames are what they are without each other: nothing merges from one into another.
    steps = whole.coords[:, 1]
    if METHODS.get(name).kind == "select":
        assert reduced.assignment is None and torch.equal(reduced.mass, torch.ones(len(visual)))
        return
    assignment = reduced.assignment
    assert assignment is not None
    assert torch.equal(assignment[reduced.source], torch.arange(len(visual), dtype=torch.int32))
    members = torch.bincount(assignment[assignment >= 0], minlength=len(visual))
    assert torch.equal(reduced.mass, members.to(torch.float32))
    kept = assignment >= 0
    assert torch.equal(steps[kept], visual.coords[:, 1][assignment[kept].long()])
    dropping = name == "pumer" or (name, options.get("variant")) == ("auroracap", "official")
    assert dropping or bool(kept.all())


@every
def test_cuts_do_not_change_anything(tower: VisionTower, name: str, options: Mapping[str, Any]) -> None:
    compressor = usable(tower, name, options)
    (whole,) = encoded(tower, compressor, [FRAMES])
    for runs, limit in (([2, 4, 1], 4096), ([4, 3], 1)):
        parts = encoded(tower, compressor, runs, limit)
        assert torch.allclose(torch.cat([part.tokens for part in parts]), whole.tokens, rtol=0, atol=1e-5)
        assert torch.equal(torch.cat([part.coords for part in parts]), whole.coords)
        joined, alone = (after_tower(reduced(some), all_of(some)) for some in (parts, [whole]))
        for field in ("mass", "source", "assignment"):
            left, right = getattr(joined, field), getattr(alone, field)
            assert left is right is None or torch.equal(left, right), field


def reduced(parts: list[VisualTokens]) -> list[Reduced]:
    return [part.reduced for part in parts if part.reduced is not None]


def all_of(parts: list[VisualTokens]) -> TokenSet:
    tokens = torch.cat([part.tokens for part in parts])
    coords = torch.cat([part.coords for part in parts])
    return TokenSet(tokens, coords, torch.ones(len(tokens)), torch.arange(len(tokens)))


@pytest.mark.parametrize("share", [0.08, 0.3])
def test_what_later_stages_spare(tower: VisionTower, share: float) -> None:
    """Where nothing merges, the most attended by a signal of the last block of the plain tower."""
    options = {"window": 2, "threshold": 1.01, "protect": share}
    (visual,) = encoded(tower, resolve("mustdrop", options=options), [FRAMES])
    name = "cls_attention_layers" if "cls_attention_layers" in tower.signals else "received_layers"
    info, size = clip_of(tower)
    whole = tower.start(info, size, frozenset({name})).push(make_pixels(info, size))
    spared = visual.signals["protected"]
    assert spared.dtype == torch.bool and len(whole) == len(visual)
    for step in whole.coords[:, 1].unique():
        rows = torch.nonzero(whole.coords[:, 1] == step).flatten()
        count = math.ceil(share * len(rows))
        best = rows[whole.signals[name][rows, -1].topk(count).indices]
        assert set(torch.nonzero(spared[rows]).flatten().tolist()) == set((best - rows[0]).tolist())
    (plain_one,) = encoded(tower, resolve("mustdrop", options={**options, "protect": 0}), [FRAMES])
    assert "protected" not in plain_one.signals and torch.equal(plain_one.tokens, visual.tokens)


@pytest.mark.parametrize("name", ["tome", "auroracap", "turbo", "mctf", "pumer"])
@pytest.mark.parametrize("keep", [0.55, 0.75, 0.9])
def test_the_share_of_each_frame(tower: VisionTower, name: str, keep: float) -> None:
    (visual,) = encoded(tower, usable(tower, name, {"keep": keep}), [FRAMES])
    whole = plain(tower)
    per_step = int((whole.coords[:, 1] == 0).sum())
    assert set(torch.bincount(visual.coords[:, 1].long()).tolist()) == {round(keep * per_step)}


@every
def test_merged_tokens_are_not_those_of_the_plain_tower(
    tower: VisionTower, name: str, options: Mapping[str, Any]
) -> None:
    """Later blocks saw less: a wrapper that runs the whole tower and drops rows afterwards would give equal ones."""
    (visual,), whole = encoded(tower, usable(tower, name, options), [FRAMES]), plain(tower)
    assert visual.reduced is not None
    # The tiny SigLIP has four tokens a frame: of one that is dropped, what EViT fuses is that one.
    as_before = name == "mustdrop" or (name == "evit" and tower.identity["family"] == "gemma3")
    if len(visual) < len(whole) and not as_before:
        assert float((visual.tokens - whole.tokens[visual.reduced.source]).abs().max()) > 1e-3


def test_a_still(tower: VisionTower) -> None:
    info = make_info("image", height=110, width=170)
    size = tower.sizer(info)
    inside = resolve("tome", keep=0.75).in_tower
    visual = tower.start(info, size, inside=inside).push(make_pixels(info, size))
    assert visual.views[0].kind == "image" and visual.reduced is not None
    assert len(visual) == round(0.75 * visual.reduced.rows)


def test_half_precision(tower: VisionTower) -> None:
    half = VisionTower(tower.model.bfloat16(), tower.family, tower.preprocessing, tower.identity)
    try:
        for name in NAMES:
            (visual,) = encoded(half, resolve(name, options={"window": 2} if name == "mustdrop" else {}), [FRAMES])
            assert visual.tokens.dtype == torch.bfloat16 and bool(torch.isfinite(visual.tokens).all())
    finally:
        tower.model.float()


def test_what_follows_is_told_in_terms_of_all_tokens() -> None:
    """By hand: four tokens become two, then three more become two; the second and the fourth of those are kept."""
    first = Reduced(4, torch.tensor([0, 2]), torch.tensor([3.0, 1.0]), torch.tensor([0, 0, 1, 0], dtype=torch.int32))
    second = Reduced(3, torch.tensor([0, 1]), torch.tensor([1.0, 1.0]), torch.tensor([0, 1, -1], dtype=torch.int32))
    kept = TokenSet(torch.zeros(2, 5), torch.zeros((2, 4), dtype=torch.int32), torch.ones(2), torch.tensor([0, 3]))
    told = after_tower([first, second], kept)
    assert told.source.tolist() == [0, 5] and told.mass.tolist() == [3.0, 1.0]
    assert told.assignment is not None and told.assignment.tolist() == [0, 0, -1, 0, -1, 1, -1]
    chosen = after_tower([replace(first, assignment=None), replace(second, assignment=None)], kept)
    assert chosen.source.tolist() == [0, 5] and chosen.assignment is None
