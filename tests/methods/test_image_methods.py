"""What the methods for stills do with views and frames, with signals, and with budgets that cannot be met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from image_items import filled, kept_of, some, tiled
from method_items import drifting, still
from test_growth import Largest

from tokcli.errors import MethodError
from tokcli.methods import describe, resolve, vispruner
from tokcli.types import View

EACH_PICTURE: list[tuple[str, Mapping[str, Any]]] = [
    ("fastervlm", {"importance": "cls"}),
    ("vtc_cls", {"importance": "cls", "start_layer": 1}),
    ("vispruner", {}),
    ("visiondrop", {}),
    ("fopru", {"strategy": "row"}),
    ("agilepruner", {"usual_rank": 3.0}),
    ("grid_uniform", {}),
    ("center", {}),
    ("norm", {}),
]
"""Every picture by itself: what is kept of it does not depend on the others."""
EACH_STILL: list[tuple[str, Mapping[str, Any]]] = [
    *EACH_PICTURE,
    ("divprune", {}),
    ("textmonkey", {}),
    ("holov", {}),
    ("hired", {}),
    ("globalcom2", {}),
    ("focusui", {}),
    ("todre", {}),
    ("todre", {"rule": "k-center"}),
    ("zoo_prune", {}),
]
ANY_ORDER = ("fastervlm", "vtc_cls", "divprune", "fopru", "agilepruner", "todre", "zoo_prune", "norm")
"""Methods that do not look at where tokens are."""


def ids(case: Any) -> str:
    return case if isinstance(case, str) else "-".join(f"{key}={value}" for key, value in case.items())


@pytest.mark.parametrize(("name", "options"), EACH_PICTURE, ids=ids)
def test_views_are_a_loop_over_single_pictures(name: str, options: Mapping[str, Any]) -> None:
    grids = [(6, 4), (6, 4), (6, 4)]
    visual = filled(still(np.zeros((72, 1)), grids, ["image"] * 3))
    together = kept_of(visual, name, options, keep=0.25)
    single = []
    for view in range(3):
        rows = torch.nonzero(visual.coords[:, 0] == view).flatten()
        alone = some(visual, rows, (View("image", (1, 6, 4)),))
        single.append(kept_of(alone, name, options, keep=0.25))
    assert torch.equal(together.source, torch.cat([kept.source + 24 * view for view, kept in enumerate(single)]))
    assert torch.equal(together.tokens, torch.cat([kept.tokens for kept in single]))


@pytest.mark.parametrize(("name", "options"), EACH_STILL, ids=ids)
def test_a_video_is_a_loop_over_its_frames(name: str, options: Mapping[str, Any]) -> None:
    visual = drifting((4, 6, 4))
    together = kept_of(visual, name, options, keep=0.25)
    for step in range(4):
        rows = torch.nonzero(visual.coords[:, 1] == step).flatten()
        alone = kept_of(some(visual, rows, (View("frames", (1, 6, 4)),)), name, options, keep=0.25)
        here = together.coords[:, 1] == step
        assert torch.equal(together.source[here], rows[alone.source])
        assert torch.equal(together.tokens[here], alone.tokens)


@pytest.mark.parametrize("name", ANY_ORDER)
def test_tokens_in_another_order_are_kept_alike(name: str) -> None:
    visual = filled(still(np.zeros((60, 1)), [(6, 10)]))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(5))
    mixed = replace(
        visual,
        tokens=visual.tokens[order],
        signals={signal: values[order] for signal, values in visual.signals.items()},
    )
    kept = kept_of(visual, name, {}, keep=0.3)
    assert order[kept_of(mixed, name, {}, keep=0.3).source].sort().values.tolist() == kept.source.tolist()


@pytest.mark.parametrize("name", sorted({name for name, _ in EACH_STILL} | {"vflowopt", "correlation"}))
def test_signals_that_are_no_numbers_are_refused(name: str) -> None:
    visual = drifting((1, 6, 4))
    ranking = [name for name in describe(name)["needs"] if name not in ("tokens", "pre_projector", "head_mean_keys")]
    for signal in ranking:
        values = visual.signals[signal].clone()
        values[5] = torch.nan
        bad = replace(visual, signals={**visual.signals, signal: values})
        with pytest.raises(MethodError, match=rf"{signal!r} is not a number for 1 of 24 .* \(0, 0, 1, 1\)"):
            kept_of(bad, name, {}, **({"keep": 0.5} if "keep" in describe(name)["budgets"] else {}))


@pytest.mark.parametrize("share", [0.1, 0.37, 0.5])
def test_what_missing_frames_do_not_use_goes_to_those_after(share: float) -> None:
    visual = drifting((8, 4, 6))
    # Every other frame is gone, as after a choice of keyframes.
    left = some(visual, torch.nonzero(visual.coords[:, 1] % 2 == 1).flatten())
    assert len(kept_of(left, "fastervlm", {}, keep=share)) == min(96, round(share * 192))


def test_a_ceiling_counts_newlines() -> None:
    visual = tiled()
    newlines = int(visual.structural.sum())
    for name, _ in EACH_STILL:
        kept = kept_of(visual, name, {}, max_tokens=newlines + 30)
        assert len(kept) == newlines + 30 or (name == "grid_uniform" and len(kept) < newlines + 30)
        with pytest.raises(MethodError, match=f"{newlines + 1} tokens of this item, over max_tokens={newlines}"):
            kept_of(visual, name, {}, max_tokens=newlines)


def test_focusui_marks_where_runs_of_dropped_tokens_end() -> None:
    visual = drifting((2, 2, 3))
    distances = torch.full((12, 2, 3), 100.0)
    # The left and the middle column of the first frame are one region, all else is alone.
    distances[[0, 3], 0] = 0
    distances[[0, 1], 1] = 0
    visual = replace(visual, signals={**visual.signals, "neighbour_distance": distances})
    kept = kept_of(visual, "focusui", {}, max_tokens=6)
    assert kept.source.tolist() == [0, 2, 5, 6, 7, 8]
    assert kept.stats["marker_place"].tolist() == [1, 4, 11]


def test_showui_keeps_some_of_each_region() -> None:
    visual = drifting((1, 3, 4))
    distances = torch.full((12, 2, 3), 100.0)
    distances[:8, 1] = 0
    visual = replace(visual, signals={**visual.signals, "neighbour_distance": distances})
    # Each column is a region of three: of one third less two stay, the first and the last; of half less, rounded, one.
    assert kept_of(visual, "showui", {}).source.tolist() == [0, 1, 2, 3]
    assert kept_of(visual, "showui", {"skip_ratio": 0.3}).source.tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    assert kept_of(visual, "showui", {"skip_ratio": 1.0}).source.tolist() == [0, 1, 2, 3]
    assert len(kept_of(visual, "showui", {"threshold": 0.0})) == 12


def test_correlation_keeps_less_of_what_repeats() -> None:
    visual = filled(still(np.zeros((200, 1)), [(10, 10)] * 2, ["image"] * 2))
    keys = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    keys[100:] = keys[100]
    visual = replace(visual, signals={**visual.signals, "head_mean_keys": keys})
    kept = kept_of(visual, "correlation", {})
    assert (kept.coords[:, 0] == 0).sum() == 100
    rest = kept.source[kept.coords[:, 0] == 1]
    assert len(rest) == 16
    best = visual.signals["received_attention"][100:].argsort(descending=True)[:8] + 100
    assert set(best.tolist()) <= set(rest.tolist())
    assert torch.equal(kept.source, kept_of(visual, "correlation", {}).source)
    other = resolve("correlation", seed=1).compress(visual, "item")
    assert not torch.equal(kept.source, other.source)


def test_baselines_by_hand() -> None:
    visual = filled(still(np.zeros((24, 1)), [(4, 6)]))
    assert kept_of(visual, "grid_uniform", {}, max_tokens=6).source.tolist() == [7, 9, 11, 19, 21, 23]
    assert kept_of(visual, "center", {}, max_tokens=4).source.tolist() == [8, 9, 14, 15]
    lengths = visual.tokens.square().sum(dim=1)
    expected = lengths.argsort(descending=True)[:5].sort().values
    assert torch.equal(kept_of(visual, "norm", {}, max_tokens=5).source, expected)


@pytest.mark.parametrize(
    ("name", "options", "budget", "message"),
    [
        ("vtc_cls", {"start_layer": 5}, {}, "start_layer=5 leaves no block before the last of 6; .* from -6 to 4$"),
        ("vflowopt", {"variant": "official"}, {"max_tokens": 9}, "variant='official' meets no ceiling"),
        ("hired", {"importance": "meanq"}, {}, "importance must be 'cls' or 'recv'$"),
        ("hired", {"variant": "official"}, {}, "the 16 tokens of the thumbnail into 6 strips .* take variant='fixed'$"),
        ("vispruner", {}, {}, "up to 10, and this one has 16; encode smaller pictures, or take 'divprune'$"),
    ],
)
def test_refusals(
    name: str, options: dict[str, Any], budget: dict[str, int], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vispruner, "MOST_TOKENS", 10)
    with pytest.raises(MethodError, match=message):
        kept_of(tiled(), name, options, **budget)


def test_a_signal_that_no_tower_gives_is_named() -> None:
    visual = drifting((1, 3, 3))
    without = replace(visual, signals={"received_attention": visual.signals["received_attention"]})
    with pytest.raises(MethodError, match="'zoo_prune' needs the signal 'projector_sensitivity', which this"):
        kept_of(without, "zoo_prune", {})


@pytest.mark.parametrize(
    "name",
    ["fastervlm", "divprune", "textmonkey", "todre", "zoo_prune", "agilepruner", "correlation", "visiondrop", "holov"],
)
def test_no_array_of_all_pairs_of_a_large_still(name: str) -> None:
    side = 72
    visual = filled(still(np.zeros((side * side, 1)), [(side, side)]))
    largest = Largest()
    with largest:
        resolve(name, keep=0.02 if "keep" in describe(name)["budgets"] else None).compress(visual, "item")
    # All pairs would be 107 MB; 17 MB is what some rows of them take at once.
    assert largest.num_bytes <= 4 << 22
