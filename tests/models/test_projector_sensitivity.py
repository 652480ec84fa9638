"""How far tokens move with what the projector is given of them, against differences in float64, place by place."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family_tiny import Tiny, make_family
from gemma_tiny import GEMMA3
from glm_tiny import GLM4V
from idefics_tiny import IDEFICS3
from next_tiny import NEXT, NEXT_VIDEO
from qwen3_vl_tiny import QWEN3_VL
from tiles_tiny import INTERNVL, ONEVISION
from tiny_checkpoints import Halves, make_info, make_pixels

from tokcli import models
from tokcli.models.sensitivity import SEED
from tokcli.ops.sensitivity import DIRECTIONS, DISTANCE, sensitivity

WANTED = frozenset({"projector_sensitivity"})
Places = Callable[[torch.Tensor], list[list[tuple[int, ...]]]]
"""For each token the places of the vectors that go into it, in what the projector is given."""


def each_row(given: torch.Tensor) -> list[list[tuple[int, ...]]]:
    return [[(picture, row)] for picture in range(given.shape[0]) for row in range(given.shape[1])]


def of_squares(side: int) -> Places:
    def places(given: torch.Tensor) -> list[list[tuple[int, ...]]]:
        across = int(given.shape[1] ** 0.5)
        return [
            [(picture, (y + down) * across + x + right) for down in range(side) for right in range(side)]
            for picture in range(given.shape[0])
            for y in range(0, across, side)
            for x in range(0, across, side)
        ]

    return places


def fours(given: torch.Tensor) -> list[list[tuple[int, ...]]]:
    return [[(row,) for row in range(first, first + 4)] for first in range(0, len(given), 4)]


CASES: dict[str, tuple[Tiny, str, Places]] = {
    "llava_next": (NEXT, "multi_modal_projector", each_row),
    "llava_next_video": (NEXT_VIDEO, "multi_modal_projector", each_row),
    "internvl": (INTERNVL, "multi_modal_projector", each_row),
    "gemma3": (GEMMA3, "multi_modal_projector", of_squares(2)),
    "qwen3_vl": (QWEN3_VL, "visual.merger", fours),
}


def by_hand(project: Callable[[torch.Tensor], torch.Tensor], given: torch.Tensor, places: Places) -> torch.Tensor:
    """Mean length of what tokens move by, in float64."""
    tokens = places(given)
    width = len(tokens[0]) * given.shape[-1]
    normal = np.random.Generator(np.random.PCG64(SEED)).standard_normal((DIRECTIONS, width))
    lengths = []
    for direction in normal / np.linalg.norm(normal, axis=1, keepdims=True):
        parts = torch.from_numpy(direction).view(len(tokens[0]), -1)
        moved = torch.zeros_like(given)
        for token in tokens:
            for place, part in zip(token, parts):
                moved[place] = DISTANCE * part
        difference = (project(given + moved) - project(given - moved)).flatten(0, -2)
        lengths.append(difference.norm(dim=-1) / (2 * DISTANCE))
    return torch.stack(lengths).mean(dim=0)


def overheard(tower: Any, module: Any, frames: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The signal of frames, and what ``module`` was called with."""
    seen: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    found = tower.start(make_info(frames=len(frames)), frames.shape[1:3], WANTED).push(frames)
    handle.remove()
    signal = found.signals["projector_sensitivity"]
    assert signal.dtype == torch.float32 and len(signal) == len(found)
    plain = tower.start(make_info(frames=len(frames)), frames.shape[1:3]).push(frames)
    assert torch.equal(plain.tokens, found.tokens)
    return signal, seen[-1].clone().double()


@pytest.mark.parametrize("name", CASES)
def test_sensitivity_is_how_far_tokens_move(name: str, tmp_path: Path) -> None:
    tiny, path, places = CASES[name]
    tower = models.load_tower(str(make_family(tmp_path, tiny)), device="cpu")
    info = make_info(frames=2)
    module = tower.model.model.get_submodule(path)
    found, given = overheard(tower, module, make_pixels(info, tower.sizer(info)))
    with torch.no_grad():
        expected = by_hand(copy.deepcopy(module).double(), given, places)
    assert found.shape == expected.shape and float(expected.min()) > 0.01
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=0)
    assert float(expected.std() / expected.mean()) > 0.02  # more than the tolerance: tokens differ


def test_sensitivity_of_glm_goes_through_its_convolution(tmp_path: Path) -> None:
    tower = models.load_tower(str(make_family(tmp_path, GLM4V)), device="cpu")
    info = make_info(frames=2)
    visual = tower.model.model.visual
    found, given = overheard(tower, visual.downsample, make_pixels(info, tower.sizer(info)))
    convolution, merger = copy.deepcopy(visual.downsample).double(), copy.deepcopy(visual.merger).double()
    shape = given.shape
    with torch.no_grad():
        expected = by_hand(
            lambda rows: merger(convolution(rows.view(shape)).flatten(1)), given.flatten(1)[None], each_row
        )
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=0)


def test_sensitivity_of_qwen_in_runs(halves: Halves) -> None:
    info = make_info(frames=5)
    frames = make_pixels(info, halves.tower.sizer(info))
    whole = halves.tower.start(info, frames.shape[1:3], WANTED).push(frames).signals["projector_sensitivity"]
    encoding = halves.tower.start(info, frames.shape[1:3], WANTED)
    parts = [encoding.push(part).signals["projector_sensitivity"] for part in (frames[:2], frames[2:])]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=2e-3, atol=0)


def test_sensitivity_of_large_stills_is_carried_like_other_signals(tmp_path: Path) -> None:
    tower = models.load_tower(str(make_family(tmp_path, ONEVISION)), device="cpu")
    info = make_info("image", height=150, width=90)
    still = make_pixels(info, tower.sizer(info))
    visual = tower.start(info, still.shape[1:3], WANTED).push(still)
    signal = visual.signals["projector_sensitivity"]
    assert not bool(signal[visual.structural].any()) and bool((signal[~visual.structural] > 0).all())


def test_there_is_none_of_a_linear_projector(tmp_path: Path) -> None:
    tower = models.load_tower(str(make_family(tmp_path, IDEFICS3)), device="cpu")
    layers = [
        module for module in tower.model.model.connector.modules() if next(module.parameters(False), None) is not None
    ]
    assert [type(layer) for layer in layers] == [torch.nn.Linear] and not WANTED & tower.signals


def test_a_linear_projector_moves_tokens_by_its_own_lengths() -> None:
    weight = torch.diag(torch.tensor([3.0, 0.5, 0.0], dtype=torch.float64))
    rows = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = sensitivity(rows, lambda moved: moved @ weight, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(found, torch.full((4,), 3.5 / 3, dtype=torch.float64))
