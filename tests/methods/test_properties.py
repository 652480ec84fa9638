"""What every registered method must do; a new method is covered by being registered.

Configurations beyond a method's defaults are listed in ``FURTHER``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_items import (
    anyres,
    assert_same,
    check_token_set,
    chunk,
    configured,
    drifting,
    kind_of,
    token_methods,
    video,
    with_signals,
)

from tokcli.errors import MethodError
from tokcli.methods import METHODS, Compressor, describe, method_names, resolve
from tokcli.types import TokenSet, VisualTokens

Options = Mapping[str, Any]

FURTHER: list[tuple[str, Options]] = [
    ("dtd", {"threshold": 0.4}),
    ("dtd", {"threshold": 0.4, "reference": "kept"}),
    ("dtd", {"threshold": 0.6, "absolute": False}),
    ("dtd", {"threshold": 0.5, "criterion": "pixel"}),
    ("dtd", {"criterion": "pixel"}),
    ("dtd", {"reference": "kept"}),
    ("dtd", {"variant": "official"}),
    ("rlt", {"threshold": 0.5}),
    ("evs", {"variant": "official"}),
    ("vidcom2", {"variant": "official"}),
    ("aim", {"variant": "official"}),
    ("aot", {"variant": "paper", "importance": "anticos", "local_importance": "meanq"}),
    ("aot", {"clip_steps": 8, "survivors": 0.9, "global_share": 0.0}),
    ("tempme", {"step_rounds": 2, "step_r": 5, "across": 0.5}),
    ("fastvid", {"anchor_every": 1, "segments": 2, "tau": -1.0}),
    ("fastvid", {"importance": "anticos", "context_share": 1.0}),
    ("holitom", {"beta": None, "tau": 0.2}),
    ("holitom", {"tau": -1.0, "max_window": 3}),
    ("prunevid", {"tau": 0.2}),
    ("temporal_merge", {"threshold": 0.7}),
    ("temporal_merge", {"threshold": 0.7, "reference": "mean"}),
    ("temporal_merge", {"threshold": 0.7, "memory": 30, "forget": "lightest"}),
    ("temporal_merge", {"index": "ivf"}),
    ("keyframes", {"mode": "cuts"}),
    ("keyframes", {"mode": "cuts", "threshold": 0.3}),
    ("keyframes", {"mode": "uniform"}),
    ("centerclip", {"distance": "cosine", "aggregate": "mean", "frames_per_segment": 3}),
    ("centerclip", {"algorithm": "sparse"}),
    ("ktv", {"variant": "official"}),
    ("ktv", {"keyframes": 2, "importance": "anticos", "features": "pre_projector"}),
    ("vqtoken", {"variant": "official", "start": "k-means++", "rescale": "none"}),
    ("vqtoken", {"start": "k-means++"}),
    ("divprune", {"variant": "official"}),
    ("hired", {"variant": "official", "importance": "cls"}),
    ("hired", {"alpha": 0.0}),
    ("holov", {"variant": "official", "importance": "anticos"}),
    ("holov", {"importance": "anticos", "crops": 5}),
    ("globalcom2", {"variant": "official"}),
    ("globalcom2", {"importance": "anticos", "temperature": 0.1}),
    ("vispruner", {"important_share": 0.0, "features": "tokens"}),
    ("visiondrop", {"contextual_share": 0.6, "importance": "anticos"}),
    ("visiondrop", {"variant": "official"}),
    ("vtc_cls", {"importance": "cls", "start_layer": 0}),
    ("vflowopt", {"variant": "official", "cell": 2.5}),
    ("vflowopt", {"cell": 2.0, "entropy_weight": 0.5, "importance": "anticos"}),
    ("showui", {"threshold": 2.0, "skip_ratio": 0.8}),
    ("focusui", {"weight": "inverse", "pixel_distance": 1.5}),
    ("todre", {"rule": "k-center", "importance": "cls"}),
    ("agilepruner", {"usual_rank": 2.0, "most_distance": 0.9}),
    ("fopru", {"strategy": "row"}),
    ("correlation", {"threshold": 0.0, "partners": 2, "least": 3, "importance": "anticos"}),
    ("folder", {"variant": "official"}),
    ("visionzip", {"variant": "official", "importance": "cls"}),
    ("visionzip", {"contextual_share": 0.0}),
    ("llavolta", {"variant": "official"}),
    ("pool2d", {"resize": "bilinear"}),
    ("ppe", {"variant": "official", "stages": 2}),
    ("ppe", {"stages": 3, "noise": True, "positions": 0}),
    ("expedit", {"temperature": 1.0, "window": 3}),
    ("cluster_merge", {"clusters": "dpc-knn", "aggregate": "importance"}),
    ("cluster_merge", {"clusters": "grid", "aggregate": "medoid"}),
    ("cluster_merge", {"aggregate": "importance", "importance": "anticos"}),
    ("balanced", {"importance": "anticos", "diversity": 0.5}),
]
CONFIGURATIONS = [pytest.param(name, {}, id=name) for name in token_methods()] + [
    pytest.param(name, options, id=name + "".join(f"-{key}={value}" for key, value in options.items()))
    for name, options in FURTHER
]
every = pytest.mark.parametrize(("name", "options"), CONFIGURATIONS)
SHARES = pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 1.0])
GRID = (8, 4, 6)


@every
@SHARES
def test_results_are_well_formed(name: str, options: Options, share: float) -> None:
    for visual in (drifting(GRID), anyres(), drifting((1, 5, 3))):
        kept = configured(name, options, share, visual).compress(visual, "item")
        check_token_set(kept, visual, kind_of(name))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        configuration
        for configuration in CONFIGURATIONS
        if "keep" in describe(str(configuration.values[0]))["budgets"] and "threshold" not in configuration.values[1]
    ],
)
def test_keep_one_is_identity(name: str, options: Options) -> None:
    for visual in (drifting(GRID), anyres()):
        kept = resolve(name, keep=1.0, options=options).compress(visual, "item")
        assert torch.equal(kept.source, torch.arange(len(visual)))
        assert torch.equal(kept.tokens, visual.tokens)


@pytest.mark.parametrize("name", token_methods())
@pytest.mark.parametrize("share", [0.13, 0.25, 0.5, 0.777])
def test_the_promised_count(name: str, share: float) -> None:
    page, visual = describe(name), drifting(GRID)
    for budget, value in (("keep", share), ("max_tokens", round(share * len(visual)))):
        if budget in page["budgets"] and page["count"] in ("exact", "at most"):
            kept = resolve(name, **{budget: value}).compress(visual, "item")
            wanted = round(share * len(visual))
            assert len(kept) == wanted if page["count"] == "exact" else 0 < len(kept) <= wanted


@every
def test_the_same_with_any_number_of_threads(name: str, options: Options) -> None:
    visual = drifting((6, 12, 12), dim=96)
    compressor = configured(name, options, 0.3, visual)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = compressor.compress(visual, "item")
        torch.set_num_threads(4)
        assert_same(compressor.compress(visual, "item"), alone)
    finally:
        torch.set_num_threads(threads)


STREAMING = [one for one in CONFIGURATIONS if METHODS.get(str(one.values[0])).streaming]
WHOLE = [one for one in CONFIGURATIONS if one not in STREAMING]


@pytest.mark.parametrize(("name", "options"), STREAMING)
@settings(max_examples=15, deadline=None)
@given(cuts=st.sets(st.integers(1, 8)), steps=st.integers(1, 9), seed=st.integers(0, 99))
def test_the_same_for_any_chunks(name: str, options: Options, cuts: set[int], steps: int, seed: int) -> None:
    visual = drifting((steps, 2, 3), seed=seed)
    compressor = configured(name, options, 0.4, visual)
    assert_same(in_chunks(compressor, visual, cuts), compressor.compress(visual, "item"))


@pytest.mark.parametrize(("name", "options"), WHOLE)
def test_what_needs_the_whole_item_says_so(name: str, options: Options) -> None:
    visual = drifting((2, 2, 3))
    compressor = configured(name, options, 0.4, visual)
    assert not compressor.streaming
    with pytest.raises(MethodError, match="needs the whole item"):
        compressor.start("item", visual.views)


def in_chunks(compressor: Compressor, visual: VisualTokens, cuts: set[int]) -> TokenSet:
    """Push the item cut before the steps ``cuts`` and join what comes back."""
    steps = visual.views[0].grid[0]
    edges = [0, *sorted(cut for cut in cuts if cut < steps), steps]
    session = compressor.start("item", visual.views)
    parts = [session.push(chunk(visual, start, stop)) for start, stop in pairwise(edges)]
    assignments = [part.assignment for part in parts if part.assignment is not None]
    return TokenSet(
        *(torch.cat([getattr(part, field) for part in parts]) for field in ("tokens", "coords", "mass", "source")),
        assignment=torch.cat(assignments) if assignments else None,
        stats=session.finish(),
    )


@every
def test_one_frame_one_token_equal_frames_and_zeros(name: str, options: Options) -> None:
    frame = torch.randn(12, 16, generator=torch.Generator().manual_seed(1))
    for tokens, grid in (
        (frame, (1, 3, 4)),
        (frame[:1], (1, 1, 1)),
        (frame.repeat(5, 1), (5, 3, 4)),
        (torch.zeros(60, 16), (5, 3, 4)),
        (torch.cat([torch.zeros(12, 16), frame]), (2, 3, 4)),
    ):
        visual = with_signals(video(tokens, grid), torch.Generator())
        visual = replace(visual, signals={name: torch.zeros_like(values) for name, values in visual.signals.items()})
        kept = configured(name, options, 0.5, visual).compress(visual, "item")
        check_token_set(kept, visual, kind_of(name))


@every
def test_no_tokens(name: str, options: Options) -> None:
    visual = chunk(drifting(GRID), 0, 0)
    assert len(configured(name, options, 0.5, drifting(GRID)).compress(visual, "item")) == 0


@every
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tokens_that_are_not_finite_are_refused(name: str, options: Options, value: float) -> None:
    visual = drifting(GRID)
    visual.tokens[50, 3] = value
    with pytest.raises(MethodError, match=r"1 of 192 tokens .* \(0, 2, 0, 2\)"):
        configured(name, options, 0.5, visual).compress(visual, "item")


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_scored_in_float32(name: str, options: Options, dtype: torch.dtype) -> None:
    visual = drifting(GRID)
    half = replace(visual, tokens=visual.tokens.to(dtype))
    same = replace(visual, tokens=half.tokens.float())
    compressor = configured(name, options, 0.4, visual)
    kept, expected = compressor.compress(half, "item"), compressor.compress(same, "item")
    assert kept.tokens.dtype == dtype
    assert torch.equal(kept.source, expected.source)
    assert torch.equal(kept.tokens, expected.tokens.to(dtype))


@every
def test_large_half_precision_tokens_are_not_taken_for_overflow(name: str, options: Options) -> None:
    visual = drifting(GRID)
    large = replace(visual, tokens=torch.full_like(visual.tokens, 60000.0, dtype=torch.float16))
    check_token_set(configured(name, options, 0.5, large).compress(large, "item"), large, kind_of(name))


@every
def test_json_round_trip(name: str, options: Options) -> None:
    visual = drifting(GRID)
    compressor = configured(name, options, 0.4, visual)
    again = Compressor.from_json(json.loads(json.dumps(compressor.to_json())))
    assert again == compressor and hash(again) == hash(compressor)
    assert_same(again.compress(visual, "item"), compressor.compress(visual, "item"))


@pytest.mark.parametrize("name", method_names())
def test_an_unknown_option_is_refused_with_the_list(name: str) -> None:
    known = ", ".join(option["name"] for option in describe(name)["options"])
    with pytest.raises(MethodError, match=f"'no_such_option' of method '{name}'; options: {known or 'it has none'}"):
        resolve(name, options={"no_such_option": "1"})


@pytest.mark.parametrize("name", method_names())
def test_the_page_is_complete_json(name: str) -> None:
    page = json.loads(json.dumps(describe(name)))
    assert page["summary"].endswith(".") and len(page["summary"]) < 100
    assert all(option["description"] and option["allowed"] for option in page["options"])
    assert ("variant" in [option["name"] for option in page["options"]]) == bool(page["variants"])


@pytest.mark.parametrize("order", ["first", "last"])
@every
def test_composition(name: str, options: Options, order: str) -> None:
    other = "random" if name == "uniform" else "uniform"
    visual = drifting(GRID)
    own = configured(name, options, 0.6, visual).to_json()["methods"][0]["options"]
    options = {**{f"{name}.{key}": value for key, value in own.items()}, f"{other}.keep": 0.4}
    spec = f"{name},{other}" if order == "first" else f"{other},{name}"
    kept = resolve(spec, options=options).compress(visual, "item")
    assert 0 < len(kept) < len(visual)
    assert bool((kept.source.diff() > 0).all())
    assert torch.equal(kept.coords, visual.coords[kept.source])
    if kind_of(name) == "merge":
        assert kept.assignment is not None
        assert torch.equal(kept.mass, torch.bincount(kept.assignment[kept.assignment >= 0]).to(torch.float32))
    else:
        assert torch.equal(kept.tokens, visual.tokens[kept.source])
