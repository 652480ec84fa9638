"""Token lists and checks that the tests of methods share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tokcli.methods import METHODS, Compressor, describe, method_names, resolve
from tokcli.methods.budget import budgets_of
from tokcli.types import TokenSet, View, VisualTokens

Arrays = Mapping[str, npt.NDArray[Any]]
"""What a golden file holds."""


def mask_of(kept: TokenSet, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Which source tokens were kept, as bool of ``shape``."""
    mask = np.zeros(int(np.prod(shape)), dtype=bool)
    mask[kept.source.numpy()] = True
    return mask.reshape(shape)


def grid_coords(view: int, grid: tuple[int, int, int]) -> torch.Tensor:
    """int32 (T * H * W, 4) in (view, t, y, x) order."""
    axes = [torch.tensor([view]), *(torch.arange(size) for size in grid)]
    return torch.cartesian_prod(*axes).to(torch.int32)


def video(tokens: Any, grid: Any, *, seconds_per_step: float | None = 1.0, **signals: torch.Tensor) -> VisualTokens:
    """One view of frames: ``tokens`` is an array of T * H * W rows in any leading shape."""
    steps, height, width = (int(size) for size in grid)
    rows = tokens if isinstance(tokens, torch.Tensor) else torch.from_numpy(np.asarray(tokens))
    count = steps * height * width
    return VisualTokens(
        tokens=rows.reshape(count, -1),
        coords=grid_coords(0, (steps, height, width)),
        views=(View("frames", (steps, height, width)),),
        structural=torch.zeros(count, dtype=torch.bool),
        signals=signals,
        seconds_per_step=seconds_per_step,
    )


def still(tokens: Any, grids: Any, kinds: Any = ("image",), **signals: torch.Tensor) -> VisualTokens:
    """A still of several views, each of one step: ``tokens`` is an array of all their rows in any leading shape."""
    rows = tokens if isinstance(tokens, torch.Tensor) else torch.from_numpy(np.asarray(tokens))
    views = tuple(View(kind, (1, int(height), int(width))) for kind, (height, width) in zip(kinds, grids))
    coords = torch.cat([grid_coords(number, view.grid) for number, view in enumerate(views)])
    structural = torch.zeros(len(coords), dtype=torch.bool)
    return VisualTokens(rows.reshape(len(coords), -1), coords, views, structural, signals)


def drifting(grid: tuple[int, int, int], *, dim: int = 16, seed: int = 0) -> VisualTokens:
    """A scene that changes a little from step to step, more at some places than at others, with a cut halfway."""
    generator = torch.Generator().manual_seed(seed)
    steps, places = grid[0], grid[1] * grid[2]
    pace = torch.rand(places, 1, generator=generator) * 1.5
    frames = [torch.randn(places, dim, generator=generator)]
    for step in range(1, steps):
        change = torch.randn(places, dim, generator=generator)
        frames.append(change if step == steps // 2 else frames[-1] + pace * change)
    return with_signals(video(torch.stack(frames), grid), generator)


def anyres(*, dim: int = 16, seed: int = 0) -> VisualTokens:
    """A thumbnail, a crop with a newline row after each of its rows, and a short clip: three views of unlike grids."""
    generator = torch.Generator().manual_seed(seed)
    crop = grid_coords(1, (1, 2, 4))
    newlines = torch.tensor([[1, 0, 0, 4], [1, 0, 1, 4]], dtype=torch.int32)
    coords = torch.cat(
        [grid_coords(0, (1, 3, 5)), crop[:4], newlines[:1], crop[4:], newlines[1:], grid_coords(2, (5, 3, 4))]
    )
    tokens = torch.randn(len(coords), dim, generator=generator)
    structural = (coords[:, 0] == 1) & (coords[:, 3] == 4)
    views = (View("thumbnail", (1, 3, 5)), View("crop", (1, 2, 4)), View("frames", (5, 3, 4)))
    return with_signals(VisualTokens(tokens, coords, views, structural, {}, 0.5), generator)


def with_signals(visual: VisualTokens, generator: torch.Generator) -> VisualTokens:
    """The item with every signal that a method may ask for; a method with a new signal adds it here."""
    flat = ("pixel_change", "received_attention", "cls_attention", "meanq")
    signals = {name: torch.rand(len(visual), generator=generator) for name in flat}
    signals |= {name: torch.randn(len(visual), 8, generator=generator) for name in ("keys", "pre_projector")}
    signals["hub_attention"] = torch.rand(len(visual), 3, generator=generator)
    more = ("probe_attention", "cls_logits", "patch_entropy", "projector_sensitivity")
    signals |= {name: torch.rand(len(visual), generator=generator) for name in more}
    layers = ("cls_attention_layers", "received_layers")
    signals |= {name: torch.rand(len(visual), 6, generator=generator) for name in layers}
    signals["head_mean_keys"] = torch.randn(len(visual), 4, generator=generator)
    signals["neighbour_distance"] = torch.rand(len(visual), 2, 3, generator=generator)
    return replace(visual, signals=signals)


def some_budget(name: str, share: float, tokens: int) -> dict[str, float | int]:
    """A budget that the method takes, as arguments of ``resolve``."""
    budgets = budgets_of(METHODS.get(name).options)
    if "keep" in budgets:
        return {"keep": share}
    return {"max_tokens": max(1, int(share * tokens))} if "max_tokens" in budgets else {}


def configured(name: str, options: Mapping[str, Any], share: float, visual: VisualTokens) -> Compressor:
    """The method with these options, and a budget of about ``share`` unless the options hold one."""
    has_budget = bool(options.keys() & set(budgets_of(METHODS.get(name).options)))
    return resolve(name, options=options, **({} if has_budget else some_budget(name, share, len(visual))))


def chunk(visual: VisualTokens, start: int, stop: int) -> VisualTokens:
    """The rows of the temporal steps start <= t < stop."""
    rows = (visual.coords[:, 1] >= start) & (visual.coords[:, 1] < stop)
    return replace(
        visual,
        tokens=visual.tokens[rows],
        coords=visual.coords[rows],
        structural=visual.structural[rows],
        signals={name: values[rows] for name, values in visual.signals.items()},
    )


def check_token_set(kept: TokenSet, visual: VisualTokens, kind: str) -> None:
    """What holds for the result of every method on every item."""
    assert len(kept) > 0
    assert kept.tokens.dtype == visual.tokens.dtype
    assert bool(torch.isfinite(kept.tokens).all())
    assert bool((kept.source.diff() > 0).all()), "rows in the order of the item, none twice"
    assert torch.equal(kept.coords, visual.coords[kept.source])
    assert set(torch.nonzero(visual.structural).flatten().tolist()) <= set(kept.source.tolist())
    if kind == "select":
        assert torch.equal(kept.tokens, visual.tokens[kept.source])
        assert kept.assignment is None
        assert torch.equal(kept.mass, torch.ones(len(kept)))
    else:
        assert kept.assignment is not None and kept.assignment.shape == (len(visual),)
        assert torch.equal(kept.assignment[kept.source], torch.arange(len(kept), dtype=torch.int32))
        members = torch.bincount(kept.assignment[kept.assignment >= 0], minlength=len(kept))
        assert torch.equal(kept.mass, members.to(torch.float32))


def assert_same(left: TokenSet, right: TokenSet) -> None:
    """Equal bit by bit, stats included."""
    for name in ("tokens", "coords", "mass", "source"):
        assert torch.equal(getattr(left, name), getattr(right, name)), name
    assert (left.assignment is None) == (right.assignment is None)
    if left.assignment is not None and right.assignment is not None:
        assert torch.equal(left.assignment, right.assignment)
    assert left.stats.keys() == right.stats.keys()
    for name in left.stats:
        np.testing.assert_array_equal(left.stats[name], right.stats[name])


def token_methods() -> list[str]:
    """Names of the methods that work on tokens; those inside a tower have tests/models/test_inside.py."""
    return [name for name in method_names() if describe(name)["where"] != "tower"]


def kind_of(name: str) -> str:
    return METHODS.get(name).kind
