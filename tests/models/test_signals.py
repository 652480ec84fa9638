"""What comes out of a tower beside the tokens, against what transformers' eager attention computes on the way."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eager_reference import HUBS, all_signals, check_equal, eager_pictures, eager_run, token_order
from family_tiny import Tiny, make_family
from glm_tiny import GLM4V, GLM45V, GLM46V
from llava_tiny import EXACT, TOKENS, make_llava, planes
from native_reference import PATCH, TEMPORAL, fill_step, patches_by_index
from qwen3_vl_tiny import QWEN3_5, QWEN3_VL
from qwen3_vl_tiny import patches as patches_of_qwen3
from tiny_checkpoints import Halves, encode_in_runs, make_info, make_pixels

from tokcli import models
from tokcli.errors import ModelError
from tokcli.models import signals as signals_module
from tokcli.models.base import PROJECTOR_SIGNALS, SQUARE_SIGNALS, TOWER_SIGNALS
from tokcli.models.signals import attend, window_order

FRAMES = 7
HEADS, WIDTH = 4, 8


@pytest.fixture
def frames(halves: Halves) -> np.ndarray:
    info = make_info(frames=FRAMES)
    return make_pixels(info, halves.tower.sizer(info))


def in_runs(tower: Any, frames: np.ndarray, runs: list[int], wanted: frozenset[str]) -> dict[str, torch.Tensor]:
    """Tokens and signals of ``frames``, given to the tower in runs."""
    found = encode_in_runs(tower, frames, runs, wanted)
    return {"tokens": found.tokens, **found.signals}


@pytest.fixture
def hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals_module, "HUBS", HUBS)


def test_signals_of_qwen_towers_are_what_eager_attention_computes(
    halves: Halves, frames: np.ndarray, hubs: None
) -> None:
    filled = fill_step(frames)
    grid = [len(filled) // TEMPORAL, frames.shape[1] // PATCH, frames.shape[2] // PATCH]
    layers = [0, 1, 2] if halves.family == "qwen2_vl" else [1, 3]
    inside, features = eager_run(halves.folder, patches_by_index(filled), grid, layers)
    assert len(inside) == 4 and inside[0].weights[0].shape == (HEADS, grid[1] * grid[2], grid[1] * grid[2])
    order = token_order(halves.family, frames)
    expected = {name: values[order] for name, values in all_signals(inside, features).items()}
    found = in_runs(halves.tower, frames, [FRAMES], TOWER_SIGNALS)
    tokens = found.pop("tokens")
    check_equal(found, expected)
    assert found["keys"].shape == found["pre_projector"].shape == (len(tokens), HEADS * WIDTH)
    assert found["head_mean_keys"].shape == (len(tokens), WIDTH)
    assert found["received_layers"].shape == (len(tokens), len(layers))
    assert not torch.equal(found["hub_attention"][:, -1], found["received_attention"])
    sums = found["received_attention"].view(4, -1).sum(dim=1), found["meanq"].view(4, -1).sum(dim=1)
    assert torch.allclose(sums[0], torch.full((4,), 0.25)) and torch.allclose(sums[1], torch.ones(4))


@pytest.mark.parametrize("tiny", [QWEN3_VL, QWEN3_5, GLM4V, GLM45V, GLM46V], ids=lambda tiny: tiny.family)
def test_signals_of_later_towers_are_what_their_own_eager_attention_computes(
    tiny: Tiny, tmp_path: Path, hubs: None
) -> None:
    folder = make_family(tmp_path, tiny)
    tower = models.load_tower(str(folder), device="cpu")
    info = make_info(frames=4)
    frames = make_pixels(info, tower.sizer(info))
    side = tower.sizer.patch_size
    patches = patches_by_index(frames) if tiny.family.startswith("glm") else patches_of_qwen3(frames)
    grid = [2, frames.shape[1] // side, frames.shape[2] // side]
    expected = all_signals(*eager_run(folder, patches, grid, range(len(tower.model.model.visual.blocks))))
    assert expected.keys() == tower.signals - SQUARE_SIGNALS - PROJECTOR_SIGNALS
    found = in_runs(tower, frames, [4], TOWER_SIGNALS)
    tokens = found.pop("tokens")
    found.pop("deepstack", None)
    check_equal(found, expected)
    assert not torch.equal(found["hub_attention"][:, -1], found["received_attention"])
    plain = in_runs(models.load_tower(str(folder), device="cpu"), frames, [4], frozenset())
    assert torch.equal(plain["tokens"], tokens)


def test_rows_are_those_of_the_tokens(halves: Halves, frames: np.ndarray) -> None:
    """A change in one window of one step moves the features of the tokens there most, in every order of blocks."""
    changed = frames.copy()
    changed[2:4, :28, 28:56] = 255 - changed[2:4, :28, 28:56]
    before, after = (in_runs(halves.tower, clip, [FRAMES], TOWER_SIGNALS) for clip in (frames, changed))
    for name in ("keys", "pre_projector"):
        moved = (before[name] - after[name]).abs().sum(dim=1).view(4, -1)
        assert int(moved.argmax()) == moved.shape[1] + 1, name
        assert float(moved[[0, 2, 3]].abs().max()) == 0, name


@pytest.mark.parametrize("runs", [[2, 2, 2, 1], [4, 3], [2, 5]])
def test_runs_do_not_change_signals(halves: Halves, frames: np.ndarray, runs: list[int]) -> None:
    whole, parts = (in_runs(halves.tower, frames, cut, TOWER_SIGNALS) for cut in ([FRAMES], runs))
    for name, values in whole.items():
        assert torch.equal(values, parts[name]), name


def test_signals_do_not_change_tokens_and_come_when_asked_only(halves: Halves, frames: np.ndarray) -> None:
    fresh = models.load_tower(str(halves.folder), device="cpu")
    plain = in_runs(fresh, frames, [FRAMES], frozenset())
    assert plain.keys() == {"tokens"}
    for name in sorted(TOWER_SIGNALS):
        one = in_runs(fresh, frames, [FRAMES], frozenset({name}))
        assert one.keys() == {"tokens", name} and torch.equal(one["tokens"], plain["tokens"])
    assert torch.equal(in_runs(fresh, frames, [FRAMES], frozenset())["tokens"], plain["tokens"])


def test_nothing_is_computed_for_those_who_do_not_ask(
    halves: Halves, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_args: Any, **_kwargs: Any) -> torch.Tensor:
        raise AssertionError("attention was computed")

    monkeypatch.setattr(signals_module, "attend", never)
    in_runs(halves.tower, frames, [FRAMES], frozenset({"keys", "pre_projector", "pixel_change"}))
    with pytest.raises(AssertionError, match="attention was computed"):
        in_runs(halves.tower, frames, [FRAMES], frozenset({"meanq"}))


def test_signals_are_float32_in_half_precision(halves: Halves, frames: np.ndarray) -> None:
    half = in_runs(
        models.load_tower(str(halves.folder), device="cpu", dtype="bfloat16"), frames, [FRAMES], TOWER_SIGNALS
    )
    exact = in_runs(halves.tower, frames, [FRAMES], TOWER_SIGNALS)
    assert half["tokens"].dtype == torch.bfloat16
    for name in TOWER_SIGNALS:
        assert half[name].dtype == torch.float32
        assert float((half[name] - exact[name]).abs().max()) < 0.05 * float(exact[name].abs().max()), name


def test_runs_in_several_threads_do_not_mix(halves: Halves) -> None:
    """A fresh tower, so that threads which listen and threads which do not come upon it before it is wired."""
    tower = models.load_tower(str(halves.folder), device="cpu")
    info = make_info(frames=2)
    size = tower.sizer(info)
    clips = [make_pixels(info, size, seed) for seed in range(24)]
    asked = [TOWER_SIGNALS if number % 3 else frozenset() for number in range(len(clips))]
    runs = [tower.start(info, size, wanted).prepare(clip) for wanted, clip in zip(asked, clips)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda run: run(), runs))
    for clip, wanted, result in zip(clips, asked, results):
        alone = in_runs(halves.tower, clip, [2], wanted)
        assert result.signals.keys() == wanted and torch.equal(result.tokens, alone["tokens"])
        for name in wanted:
            assert torch.equal(result.signals[name], alone[name]), name


@pytest.mark.parametrize(("rows", "columns", "side"), [(4, 4, 2), (5, 7, 4), (3, 9, 4), (1, 1, 4), (8, 2, 3)])
def test_window_order_is_that_of_transformers(rows: int, columns: int, side: int) -> None:
    from transformers.vision_utils import get_vision_window_index

    index, _ = get_vision_window_index(
        torch.tensor([[1, 2 * rows, 2 * columns]]), spatial_merge_size=2, window_size=28 * side, patch_size=14
    )
    assert torch.equal(window_order(rows, columns, side), index)


def test_attention_takes_queries_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(3, 50, 8, generator=generator), torch.randn(3, 40, 8, generator=generator)
    expected = torch.softmax(query @ key.transpose(1, 2) * 0.5, dim=-1).mean(dim=(0, 1))
    assert torch.allclose(attend(query, key, 0.5), expected, rtol=0, atol=1e-7)
    sizes = []
    softmax = torch.softmax

    def counted(values: torch.Tensor, dim: int) -> torch.Tensor:
        sizes.append(values.shape[1])
        return softmax(values, dim=dim)

    monkeypatch.setattr(signals_module, "QUERIES_AT_ONCE", 16)
    monkeypatch.setattr(torch, "softmax", counted)
    assert torch.allclose(attend(query, key, 0.5), expected, rtol=0, atol=1e-7) and sizes == [16, 16, 16, 2]


def test_a_tower_without_a_block_that_sees_whole_frames_has_no_signals(
    halves: Halves, frames: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    if halves.family == "qwen2_vl":
        return
    monkeypatch.setattr(halves.tower.model.config.vision_config, "fullatt_block_indexes", [])
    with pytest.raises(ModelError, match="no block of this tower attends to whole frames"):
        in_runs(halves.tower, frames, [FRAMES], frozenset({"meanq"}))


@pytest.fixture(params=[-2, -1, 2], ids=lambda layer: f"layer{layer}")
def layered(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Any, Any, int]]:
    """A tower, the native model with eager attention, and the block whose output the features are."""
    from transformers import AutoModelForImageTextToText

    folder = make_llava(tmp_path, EXACT, vision_feature_layer=request.param)
    native = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation="eager").eval()
    yield models.load_tower(str(folder), device="cpu"), native, {-2: 2, -1: 3, 2: 1}[request.param]


def test_signals_of_llava_are_what_eager_attention_computes(layered: tuple[Any, Any, int], hubs: None) -> None:
    tower, native, block = layered
    info = make_info(frames=3)
    frames = make_pixels(info, tower.sizer(info))
    run = eager_pictures(native.model.vision_tower, planes(frames), block)
    of_frames = [frame.signals(lambda values: values) for frame in run.frames]
    expected = {name: torch.cat([frame[name] for frame in of_frames]) for name in of_frames[0]}
    expected["pre_projector"] = run.states[block + 1][:, 1:].flatten(0, 1)
    found = in_runs(tower, frames, [3], frozenset(expected))
    assert expected.keys() == tower.signals - SQUARE_SIGNALS - PROJECTOR_SIGNALS
    tokens = found.pop("tokens")
    assert len(tokens) == 3 * TOKENS and found["cls_attention_layers"].shape == (len(tokens), 4)
    check_equal(found, expected)
    assert torch.equal(found["cls_attention_layers"][:, block], found["cls_attention"])
    plain = in_runs(models.load_tower(tower.identity["model"], device="cpu"), frames, [3], frozenset())
    assert torch.equal(plain["tokens"], tokens)


def test_features_that_come_out_of_no_block(llava: Halves, monkeypatch: pytest.MonkeyPatch) -> None:
    info = make_info(frames=1)
    frames = make_pixels(info, llava.tower.sizer(info))
    monkeypatch.setattr(llava.tower.model.config, "vision_feature_layer", 0)
    with pytest.raises(ModelError, match="vision_feature_layer 0 comes out of no block"):
        in_runs(llava.tower, frames, [1], frozenset({"keys"}))
