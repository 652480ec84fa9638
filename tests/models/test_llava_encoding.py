"""LLaVA's tower: native features in any runs of frames, and signals that are the real attentions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llava_tiny import CROPPED, SIDE, TOKENS, make_llava, planes
from tiny_checkpoints import Halves, encode_in_runs, make_info, make_pixels

from tokcli import models
from tokcli.errors import ModelError
from tokcli.models.preprocess import pixel_change
from tokcli.types import VisualTokens

SIGNALS = frozenset({"tokens", "pixel_change", "cls_attention", "received_attention"})


@pytest.fixture
def frames(llava: Halves) -> np.ndarray:
    info = make_info(frames=7)
    return make_pixels(info, llava.tower.sizer(info))


def in_runs(tower: Any, frames: np.ndarray, runs: list[int], max_patches: int | None = None) -> VisualTokens:
    return encode_in_runs(tower, frames, runs, SIGNALS, max_patches)


@torch.no_grad()
def native_features(native: Any, frames: np.ndarray, **extra: Any) -> torch.Tensor:
    return torch.cat(list(native.model.get_image_features(planes(frames), return_dict=True, **extra).pooler_output))


def test_tokens_are_the_native_features(llava: Halves, frames: np.ndarray) -> None:
    whole = in_runs(llava.tower, frames, [7])
    assert torch.equal(whole.tokens, native_features(llava.native, frames))
    assert len(whole) == 7 * TOKENS and whole.views[0].grid == (7, 3, 3) and whole.views[0].kind == "frames"
    assert whole.coords[TOKENS + 5].tolist() == [0, 1, 1, 2]
    assert whole.seconds_per_step == 1 / 1.6 and llava.tower.frames_per_step == 1
    assert not whole.tokens.is_inference() and not whole.signals["cls_attention"].is_inference()


def test_features_are_those_of_the_layer_that_the_configuration_names(llava: Halves, frames: np.ndarray) -> None:
    """Hidden states -2 without their first row, through the projector: counted here from the list of all of them."""
    native = llava.native.model
    with torch.no_grad():
        states = native.vision_tower(planes(frames), output_hidden_states=True).hidden_states
        expected = native.multi_modal_projector(states[3][:, 1:]).flatten(0, 1)
    assert len(states) == 5  # what goes into the first of four blocks, and what comes out of each
    assert torch.equal(in_runs(llava.tower, frames, [7]).tokens, expected)


@pytest.mark.parametrize("runs", [[1] * 7, [2, 5], [3, 3, 1]])
@pytest.mark.parametrize("limit", [1, 4096])
def test_runs_do_not_change_anything(llava: Halves, frames: np.ndarray, runs: list[int], limit: int) -> None:
    whole, parts = in_runs(llava.tower, frames, [7]), in_runs(llava.tower, frames, runs, limit)
    assert torch.allclose(whole.tokens, parts.tokens, rtol=0, atol=1e-6)
    assert torch.equal(whole.coords, parts.coords)
    assert set(whole.signals) == SIGNALS - {"tokens"}
    for name, signal in whole.signals.items():
        assert torch.allclose(signal, parts.signals[name], rtol=0, atol=1e-7), name


def test_signals_are_the_real_attentions(llava: Halves, frames: np.ndarray) -> None:
    """Against the weights that the eager implementation hands out, of the block that the features come from."""
    from transformers import AutoModelForImageTextToText

    eager = AutoModelForImageTextToText.from_pretrained(llava.folder, attn_implementation="eager").eval()
    with torch.no_grad():
        attentions = eager.model.vision_tower(planes(frames), output_attentions=True).attentions
    weights = attentions[-2].mean(dim=1)  # over heads: (frames, 10, 10)
    assert len(attentions) == 4 and weights.shape == (7, 1 + TOKENS, 1 + TOKENS)
    signals = in_runs(llava.tower, frames, [7]).signals
    for name, expected in (("cls_attention", weights[:, 0, 1:]), ("received_attention", weights.mean(dim=1)[:, 1:])):
        assert signals[name].dtype == torch.float32 and signals[name].shape == (7 * TOKENS,)
        assert float((signals[name] - expected.reshape(-1)).abs().max()) <= 1.5e-6
        # The other blocks look elsewhere, so the right one was taken.
        wrong = attentions[-1].mean(dim=1)
        wrong = wrong[:, 0, 1:] if name == "cls_attention" else wrong.mean(dim=1)[:, 1:]
        assert float((signals[name] - wrong.reshape(-1)).abs().max()) > 1e-4


def test_many_queries_are_taken_in_turns(llava: Halves, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokcli.models import signals

    whole = in_runs(llava.tower, frames, [7]).signals["received_attention"]
    monkeypatch.setattr(signals, "QUERIES_AT_ONCE", 3)
    assert torch.allclose(in_runs(llava.tower, frames, [7]).signals["received_attention"], whole, rtol=0, atol=1e-7)


def test_signals_do_not_change_the_tokens(llava: Halves, frames: np.ndarray) -> None:
    encoding = llava.tower.start(make_info(frames=7), frames.shape[1:3])
    plain = encoding.push(frames)
    assert plain.signals == {} and torch.equal(plain.tokens, in_runs(llava.tower, frames, [7]).tokens)


def test_signals_are_float32_in_half_precision(llava: Halves, frames: np.ndarray) -> None:
    tower = models.load_tower(str(llava.folder), device="cpu", dtype="bfloat16")
    half = in_runs(tower, frames, [7])
    assert half.tokens.dtype == torch.bfloat16
    exact = in_runs(llava.tower, frames, [7]).signals["cls_attention"]
    assert half.signals["cls_attention"].dtype == torch.float32
    assert float((half.signals["cls_attention"] - exact).abs().max()) < 0.02


def test_runs_in_several_threads_do_not_mix(llava: Halves) -> None:
    infos = [make_info(frames=2) for _ in range(24)]
    size = llava.tower.sizer(infos[0])
    clips = [make_pixels(info, size, seed) for seed, info in enumerate(infos)]
    runs = [llava.tower.start(info, size, SIGNALS).prepare(clip) for info, clip in zip(infos, clips)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda run: run(), runs))
    for clip, result in zip(clips, results):
        alone = in_runs(llava.tower, clip, [2])
        assert torch.equal(result.tokens, alone.tokens)
        assert torch.equal(result.signals["cls_attention"], alone.signals["cls_attention"])


def test_smaller_frames_have_interpolated_places(llava: Halves) -> None:
    """What ``downsample`` gives the tower: a grid of its own, with the learned places stretched as CLIP does it."""
    info = make_info(frames=3)
    size = llava.tower.sizer(info, 0.5)
    assert size == (2 * 14, 2 * 14)
    frames = make_pixels(info, size)
    small = in_runs(llava.tower, frames, [3])
    assert small.views[0].grid == (3, 2, 2)
    assert torch.equal(small.tokens, native_features(llava.native, frames, interpolate_pos_encoding=True))


def test_only_the_middle_of_a_frame_is_encoded_where_it_is_cropped(llava: Halves, tmp_path: Path) -> None:
    tower = models.load_tower(str(make_llava(tmp_path, CROPPED)), device="cpu")
    info = make_info(frames=3, height=100, width=150)
    size = tower.sizer(info)
    assert size == (SIDE, 63)
    frames = make_pixels(info, size)
    # 63 - 42 pixels are too many; 10 of them, half of it rounded down, are on the left.
    middle = np.ascontiguousarray(frames[:, :, 10 : 10 + SIDE])
    whole = in_runs(tower, frames, [3])
    assert torch.equal(whole.tokens, native_features(llava.native, middle)) and whole.views[0].grid == (3, 3, 3)
    expected = pixel_change(None, middle, 1, 14)
    assert np.array_equal(whole.signals["pixel_change"].numpy(), expected)


def test_a_still_is_one_step(llava: Halves) -> None:
    info = make_info("image")
    size = llava.tower.sizer(info)
    pixels = make_pixels(info, size)
    encoding = llava.tower.start(info, size)
    assert torch.equal(encoding.push(pixels).tokens, native_features(llava.native, pixels))
    assert encoding.views[0].kind == "image" and encoding.views[0].grid == (1, 3, 3)
    assert encoding.seconds_per_step is None


def test_the_tower_half_holds_tower_and_projector_alone(llava: Halves) -> None:
    names = [name for name, _ in llava.tower.model.named_parameters()]
    assert {name.split(".")[1] for name in names} == {"vision_tower", "multi_modal_projector"}


def test_what_cannot_be_encoded(llava: Halves) -> None:
    with pytest.raises(ModelError, match=r"needs the signal 'depth', which .* does not give; it gives cls_atten"):
        llava.tower.start(make_info(), (SIDE, SIDE), frozenset({"depth"}))
    with pytest.raises(ValueError, match="size must be positive multiples of 14"):
        llava.tower.start(make_info(), (40, 42))
