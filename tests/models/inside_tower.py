"""What tests of methods inside a tower share: tiny towers of all kinds that can be reduced in, and how to run them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from family_tiny import make_family
from gemma_tiny import GEMMA3
from llava_tiny import CROPPED, make_llava
from tiny_checkpoints import make_checkpoint, make_info, make_pixels

from tokcli.errors import MethodError
from tokcli.methods import Compressor, describe, method_names, resolve
from tokcli.models import VisionTower
from tokcli.types import MediaInfo, VisualTokens

FRAMES = 7
NAMES = [name for name in method_names() if describe(name)["where"] == "tower"]
# The tiny frames are 6 x 6, 4 x 6 or 2 x 2 tokens.
OPTIONS: list[tuple[str, Mapping[str, Any]]] = [
    *((name, {"window": 2} if name == "mustdrop" else {}) for name in NAMES),
    ("tome", {"r": 3, "inflect": -0.5}),
    ("tome", {"schedule": "1,0,2"}),
    ("auroracap", {"variant": "official"}),
    ("turbo", {"r": 3, "fewest": 0}),
    ("mctf", {"r": 0.3}),
    ("mctf", {"keep": 0.6, "both_ways": False, "weigh_by": "max"}),
    ("pumer", {"variant": "official", "keep": 0.4}),
    ("pumer", {"match": "score", "prune": 0.0}),
    ("evit", {"variant": "official", "keep_rate": 0.5}),
    ("evit", {"fuse": False, "keep": 0.6}),
    ("flowcut", {"variant": "official", "keep": 0.6}),
    ("mustdrop", {"window": 2, "threshold": -1}),
    ("mustdrop", {"window": 2, "keep": 0.7, "variant": "official"}),
]
every = pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(name, options, id=name + "".join(f"-{key}={value}" for key, value in options.items()))
        for name, options in OPTIONS
    ],
)
NOTHING: dict[str, Mapping[str, Any]] = {"mustdrop": {"window": 2, "threshold": 1.01}, "tome": {"r": 0}}


def clip_tower(folder: Path) -> Path:
    size = {"height": 84, "width": 84}
    processor = {**CROPPED, "size": {"shortest_edge": 84}, "crop_size": size}
    return make_llava(folder, processor, vision={"num_hidden_layers": 6, "image_size": 84})


def siglip_tower(folder: Path) -> Path:
    return make_family(folder, GEMMA3)


TOWERS: dict[str, Callable[[Path], Path]] = {
    "llava": clip_tower,
    "gemma3": siglip_tower,
    "qwen2_vl": lambda folder: make_checkpoint(folder, "qwen2_vl"),
    "qwen2_5_vl": lambda folder: make_checkpoint(folder, "qwen2_5_vl"),
}
EXACT = {"llava", "qwen2_vl", "qwen2_5_vl"}


def clip_of(tower: VisionTower, frames: int = FRAMES) -> tuple[MediaInfo, tuple[int, int]]:
    """A clip whose frames have an even number of tokens both ways, where the tower takes any size."""
    info = make_info(frames=frames, height=110, width=170)
    return info, tower.sizer(info)


def encoded(tower: VisionTower, compressor: Compressor, runs: list[int], max_patches: int = 4096) -> list[VisualTokens]:
    info, size = clip_of(tower, sum(runs))
    frames = make_pixels(info, size)
    before, tower.max_patches = tower.max_patches, max_patches
    try:
        wanted = frozenset({"tokens", "pixel_change"}) & {"tokens", *tower.signals}
        encoding = tower.start(info, size, wanted, inside=compressor.in_tower)
        ends = np.cumsum(runs)
        return [encoding.push(frames[end - run : end]) for run, end in zip(runs, ends)]
    finally:
        tower.max_patches = before


def plain(tower: VisionTower) -> VisualTokens:
    info, size = clip_of(tower)
    return tower.start(info, size).push(make_pixels(info, size))


def usable(tower: VisionTower, name: str, options: Mapping[str, Any]) -> Compressor:
    """The method, unless the tiny tower can't carry it: then it must say so."""
    compressor = resolve(name, options=options)
    inside = compressor.in_tower
    assert inside is not None
    info, size = clip_of(tower)
    try:
        tower.start(info, size, inside=inside)
    except MethodError as error:
        assert "of this tower" in str(error) and "\n" not in str(error)
        pytest.skip(str(error))
    return compressor
