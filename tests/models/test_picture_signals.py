"""Signals of towers that take pictures of one size, against eager attention, with tiles stitched by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eager_reference import HUBS, check_equal
from family_tiny import Tiny, make_family, planes, resized
from gemma_tiny import GEMMA3
from next_tiny import NEXT
from picture_reference import CASES, Case, carried, next_canvas, of_pictures, onevision_canvas
from tiles_tiny import ONEVISION, SIDE, SIGLIP, TOKENS, anyres
from tiny_checkpoints import make_info, make_pixels

from tokcli import models
from tokcli.errors import ModelError
from tokcli.models import signals as signals_module
from tokcli.models.base import CLS_SIGNALS, PROJECTOR_SIGNALS, TOWER_SIGNALS

SHAPES = [(100, 150), (150, 90), (61, 60)]
FRAMES = 5


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def opened(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A checkpoint, and the whole model with eager attention."""
    from transformers import AutoModelForImageTextToText

    folder = make_family(tmp_path_factory.mktemp("pictures"), case.tiny)
    return folder, AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()


@pytest.fixture
def tower(opened: tuple[Path, Any]) -> models.VisionTower:
    return models.load_tower(str(opened[0]), device="cpu")


@pytest.fixture(autouse=True)
def hubs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(signals_module, "HUBS", HUBS)
    yield


@pytest.mark.parametrize("shape", SHAPES)
def test_signals_of_stills(
    case: Case, opened: tuple[Path, Any], tower: models.VisionTower, shape: tuple[int, int]
) -> None:
    info = make_info("image", height=shape[0], width=shape[1])
    still = make_pixels(info, tower.sizer(info))
    expected = {
        name: carried(values, lambda values: case.stitch(values, shape))
        for name, values in of_pictures(case, opened[1], case.cut(still)).items()
    }
    assert expected.keys() == tower.signals & (TOWER_SIGNALS | CLS_SIGNALS)
    visual = tower.start(info, still.shape[1:3], frozenset(expected)).push(still)
    check_equal(dict(visual.signals), expected)
    for name, values in visual.signals.items():
        assert not bool(values[visual.structural].any()), name
    assert not torch.equal(visual.signals["hub_attention"][:, -1], visual.signals["received_attention"])
    plain = models.load_tower(str(opened[0]), device="cpu").start(info, still.shape[1:3]).push(still)
    assert torch.equal(plain.tokens, visual.tokens) and not plain.signals


def test_signals_of_frames(case: Case, opened: tuple[Path, Any], tower: models.VisionTower) -> None:
    info = make_info(frames=FRAMES)
    frames = make_pixels(info, tower.sizer(info))
    of_frames = of_pictures(case, opened[1], planes(resized(frames, case.side, case.side)))
    expected = {name: carried(values, case.frames).flatten(0, 1) for name, values in of_frames.items()}
    encoding = tower.start(info, frames.shape[1:3], frozenset(expected))
    visual = encoding.push(frames)
    check_equal(dict(visual.signals), expected)
    plain = models.load_tower(str(opened[0]), device="cpu").start(info, frames.shape[1:3]).push(frames)
    assert torch.equal(plain.tokens, visual.tokens) and not plain.signals
    closing = encoding.closing()
    if closing is not None:
        assert closing.signals.keys() == expected.keys()
        for name, values in closing.signals.items():
            assert values.shape[1:] == expected[name].shape[1:] and not bool(values.any())


@pytest.mark.parametrize("kind", ["image", "video"])
def test_runs_do_not_change_signals(
    case: Case, tower: models.VisionTower, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = make_info(kind, frames=FRAMES)
    pixels = make_pixels(info, tower.sizer(info))
    # Differences of small differences grow in the projector; these have a test of their own.
    wanted = tower.signals - PROJECTOR_SIGNALS
    whole = tower.start(info, pixels.shape[1:3], wanted).push(pixels)
    monkeypatch.setattr(tower, "max_patches", 1)
    encoding = tower.start(info, pixels.shape[1:3], wanted)
    run = 2 if kind == "video" else 1
    parts = [encoding.push(pixels[first : first + run]) for first in range(0, len(pixels), run)]
    for name, values in whole.signals.items():
        # As the tokens, not always equal bit by bit on processors with wider vectors.
        again = torch.cat([part.signals[name] for part in parts])
        torch.testing.assert_close(again, values, rtol=0, atol=1e-6, msg=name)


def test_some_of_these_stills_are_unpadded_and_some_are_shrunk() -> None:
    values = torch.zeros(1 + 12, TOKENS**2, 1)
    left = [next_canvas(values[: 1 + tiles_of(shape)], shape) for shape in SHAPES]
    shrunk = [onevision_canvas(values[: 1 + tiles_of(shape)], shape) for shape in SHAPES]
    assert any(kept.shape[0] * kept.shape[1] < tiles_of(shape) * TOKENS**2 for kept, shape in zip(left, SHAPES))
    assert sum(few.shape != all_.shape for few, all_ in zip(shrunk, left)) in (1, 2)


def tiles_of(shape: tuple[int, int]) -> int:
    return len(anyres(np.zeros((1, *shape, 3), dtype=np.uint8))) - 1


@pytest.mark.parametrize("tiny", [ONEVISION, GEMMA3], ids=lambda tiny: tiny.family)
def test_the_pooling_head_of_siglip(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against torch's own module, which gives weights when it is asked for them."""
    monkeypatch.setitem(SIGLIP, "vision_use_head", True)
    tower = models.load_tower(str(make_family(tmp_path, tiny)), device="cpu")
    head = tower.model.model.vision_tower.head
    seen: list[torch.Tensor] = []
    head.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    info = make_info("image", height=SIDE, width=2 * SIDE)
    still = make_pixels(info, tower.sizer(info))
    visual = tower.start(info, still.shape[1:3], frozenset({"probe_attention"})).push(still)
    pictures = torch.cat(seen)
    probe = head.probe.expand(len(pictures), -1, -1)
    with torch.inference_mode():
        _, weights = head.attention(probe, pictures, pictures)
    case = CASES[tiny.family]
    native = tower.model
    pooled = (case.members(native, weights.shape[2]) @ weights.transpose(1, 2)).clone()
    expected = case.stitch(pooled, still.shape[1:3])[:, 0]
    check_equal(dict(visual.signals), {"probe_attention": expected})


def test_features_that_keep_what_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = models.load_tower(str(make_family(tmp_path, NEXT)), device="cpu")
    assert tower.signals >= CLS_SIGNALS
    monkeypatch.setattr(tower.model.config, "vision_feature_select_strategy", "full")
    assert not CLS_SIGNALS & tower.signals
    with pytest.raises(ModelError, match=r"'cls_logits', which .* does not give: its features have no \[CLS\]"):
        tower.start(make_info("image"), (100, 150), frozenset({"cls_logits"}))


@pytest.mark.parametrize("tiny", [ONEVISION, GEMMA3], ids=lambda tiny: tiny.family)
def test_a_siglip_without_its_pooling_head(tiny: Tiny, tmp_path: Path) -> None:
    folder = str(make_family(tmp_path, tiny))
    tower = models.load_tower(folder, device="cpu")
    assert "probe_attention" in tower.family.signals and "probe_attention" not in tower.signals
    assert "probe_attention" not in models.describe_model(folder)["signals"]
    info = make_info("image")
    message = r"'probe_attention', which .* does not give: its tower was saved without SigLIP's pooling head"
    with pytest.raises(ModelError, match=message):
        tower.start(info, tower.sizer(info), frozenset({"probe_attention"}))
