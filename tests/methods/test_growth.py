"""No tensor that a method makes grows with the square of the number of frames."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from method_items import video
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tokcli.methods import resolve
from tokcli.types import VisualTokens

PLACES = (4, 4)
DIM = 8
CASES: list[tuple[str, dict[str, Any]]] = [
    ("dtd", {}),
    ("evs", {"keep": 0.3}),
    ("vidcom2", {"keep": 0.3}),
    ("dycoke", {}),
    ("rlt", {}),
    ("aim", {}),
    ("tempme", {}),
    ("aot", {}),
    ("holitom", {}),
    ("fastvid", {"keep": 0.3, "options": {"segments": 1, "tau": -1}}),
    ("prunevid", {}),
    ("temporal_merge", {"keep": 0.3}),
    ("temporal_merge", {"threshold": 0.8}),
    ("keyframes", {"keep": 0.1}),
    ("ktv", {}),
    ("vqtoken", {"max_tokens": 16}),
    ("centerclip", {}),
    ("ts_llava", {}),
    ("fastervlm", {}),
    ("divprune", {"keep": 0.3}),
    ("holov", {}),
    ("todre", {}),
    ("correlation", {}),
    ("visiondrop", {}),
    ("grid_uniform", {"keep": 0.3}),
    ("folder", {}),
    ("visionzip", {}),
    ("llavolta", {}),
    ("pool2d", {"keep": 0.25, "options": {"resize": "bilinear"}}),
    ("ppe", {}),
    ("expedit", {"keep": 0.25}),
    ("cluster_merge", {"keep": 0.25}),
    ("balanced", {"keep": 0.25}),
]


class Largest(TorchDispatchMode):
    """Remembers the most bytes of any tensor with storage of its own that an operation gave."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.num_bytes = max(self.num_bytes, leaf.untyped_storage().nbytes())
        return result


def drifting(num_frames: int) -> VisualTokens:
    generator = torch.Generator().manual_seed(0)
    grid = (num_frames, *PLACES)
    # A drift that stays within bounds, so that long clips are like several short ones.
    base = torch.randn((1, PLACES[0] * PLACES[1], DIM), generator=generator)
    rows = (base + 0.3 * torch.randn((num_frames, PLACES[0] * PLACES[1], DIM), generator=generator)).reshape(-1, DIM)
    signals = {name: rows[:, 0].abs() for name in ("pixel_change", "received_attention", "meanq")}
    signals["head_mean_keys"] = rows[:, :4]
    return video(rows, grid, **signals)


def most_bytes(name: str, arguments: dict[str, Any], num_frames: int) -> int:
    """Of the largest tensor."""
    visual, compressor, largest = drifting(num_frames), resolve(name, **arguments), Largest()
    with largest:
        compressor.compress(visual, "item")
    return largest.num_bytes


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=lambda case: case if isinstance(case, str) else "")
def test_tensors_grow_with_the_frames_and_not_with_their_square(name: str, arguments: dict[str, Any]) -> None:
    assert most_bytes(name, arguments, 96) <= 5 * most_bytes(name, arguments, 24)
