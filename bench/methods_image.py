"""Time of the methods for stills on one still of 2,880 tokens of 1024 numbers, float32, one thread.

The still is a thumbnail and a canvas of 2 x 2 tiles, 576 tokens each. Beside each stands the bare arithmetic of
:mod:`bench.methods`, timed in the same run, and the time of the authors' code, or of an implementation from the paper's
text where there is none, on two cores of a shared x86 machine where the bare arithmetic took 0.10 s. Some have theirs
written down plainly in :mod:`bench.plain_stills` and timed in the same run: calls of less than a millisecond, and
products of large matrices, do not take longer where the bare arithmetic does.

    python -m bench.methods --image [--json] [--repeats N]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from bench import plain_stills
from tokcli.types import View, VisualTokens

SIDE = 24
DIM = 1024
TENTH = {"keep": 0.1}
HALF_THE_TIME = 0.5


@dataclass(frozen=True)
class Row:
    """A method to be measured."""

    name: str
    """Its name first, then what tells its setting apart."""
    official_seconds: float | None = None
    arguments: Mapping[str, Any] = field(default_factory=lambda: TENTH)
    """Of ``resolve``."""
    target: float = 1.0
    """Share of the official time that it may take."""
    plain: Callable[[], Callable[[], object]] | None = None
    """Makes what is timed in place of ``official_seconds``."""
    grid: tuple[int, int] | None = None
    """Of a still of one view in place of the five tiles, where the authors' code was given that."""


SELECTION = (
    Row("fastervlm", plain=plain_stills.fastervlm),
    Row("divprune", target=HALF_THE_TIME, plain=plain_stills.divprune),
    Row("textmonkey", target=HALF_THE_TIME, plain=plain_stills.textmonkey),
    Row("vispruner", None, {"keep": 1 / 9}, target=HALF_THE_TIME, plain=plain_stills.vispruner),
    Row("holov", plain=plain_stills.holov),
    Row("hired", None, {"keep": 0.2}, plain=plain_stills.hired),
    Row("globalcom2", 0.019),
    Row("visiondrop", None, {"keep": 1 / 12}),
    Row("vtc_cls", None),
    Row("vflowopt", None),
    Row("showui", None, {}),
    Row("focusui", None),
    Row("todre max-sum", 0.234),
    Row("todre k-center", 0.234, {**TENTH, "options": {"rule": "k-center"}}),
    Row("agilepruner", 5 * 0.137),
    Row("zoo_prune", None),
    Row("fopru", None),
    Row("correlation", None, {}),
    Row("grid_uniform", None),
    Row("center", None),
    Row("norm", None),
)
MERGING = (
    Row("visionzip", 0.033, {"keep": 58 / 576}),
    Row("folder", target=HALF_THE_TIME, plain=plain_stills.folder, grid=(48, 60)),
    Row("folder tiles"),
    Row("ppe", target=HALF_THE_TIME, plain=plain_stills.ppe, grid=(48, 60)),
    Row("ppe tiles"),
    Row("expedit", None, {"max_tokens": 288}, target=HALF_THE_TIME, plain=plain_stills.expedit, grid=(54, 54)),
    Row("expedit tiles"),
    Row("cluster_merge", None, {"max_tokens": 288}),
    Row("llavolta", None, {}),
    Row("pool2d"),
    Row("balanced"),
)
ROWS = (*SELECTION, *MERGING)


def make_still(grid: tuple[int, int] | None = None) -> VisualTokens:
    """A thumbnail and a canvas, or a picture of one view, with every signal that the methods ask for."""
    generator = torch.Generator().manual_seed(0)
    views: tuple[View, ...] = (View("thumbnail", (1, SIDE, SIDE)), View("crop", (1, 2 * SIDE, 2 * SIDE)))
    if grid is not None:
        views = (View("image", (1, *grid)),)
    coords = torch.cat(
        [
            torch.cartesian_prod(torch.tensor([number]), *(torch.arange(size) for size in view.grid))
            for number, view in enumerate(views)
        ]
    )
    rows = len(coords)
    signals = {
        name: torch.rand(rows, generator=generator)
        for name in ("received_attention", "cls_attention", "projector_sensitivity")
    }
    signals["received_layers"] = torch.rand((rows, SIDE), generator=generator)
    signals["hub_attention"] = torch.rand((rows, 3), generator=generator)
    signals["head_mean_keys"] = torch.randn((rows, 64), generator=generator)
    signals["neighbour_distance"] = torch.rand((rows, 2, 3), generator=generator)
    tokens = torch.randn((rows, DIM), generator=generator)
    signals["pre_projector"] = tokens
    return VisualTokens(tokens, coords.to(torch.int32), views, torch.zeros(rows, dtype=torch.bool), signals)
