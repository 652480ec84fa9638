"""Encoding: the whole model's features, in any runs of frames, with coordinates and signals that go on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from native_reference import PATCH, TEMPORAL, fill_step, patches_by_index
from tiny_checkpoints import Halves, encode_in_runs, make_info, make_pixels

from tokcli.errors import ModelError
from tokcli.models.preprocess import pixel_change, resize_frames
from tokcli.types import VisualTokens

CHANGE = frozenset({"tokens", "pixel_change"})


def in_runs(halves: Halves, frames: np.ndarray, runs: list[int], max_patches: int | None = None) -> VisualTokens:
    return encode_in_runs(halves.tower, frames, runs, CHANGE, max_patches)


@pytest.fixture
def frames(halves: Halves) -> np.ndarray:
    info = make_info(frames=11)
    return make_pixels(info, halves.tower.sizer(info))


def test_tokens_are_the_native_features(halves: Halves, frames: np.ndarray) -> None:
    filled = fill_step(frames)
    grid = torch.tensor([[len(filled) // TEMPORAL, frames.shape[1] // PATCH, frames.shape[2] // PATCH]])
    with torch.no_grad():
        native = halves.native.model.get_video_features(patches_by_index(filled), grid, return_dict=True)
    whole = in_runs(halves, frames, [11])
    assert torch.equal(whole.tokens, torch.cat(list(native.pooler_output)))
    assert len(whole) == int(grid.prod()) // 4


@pytest.mark.parametrize("runs", [[2, 2, 2, 2, 2, 1], [4, 4, 3], [8, 3], [2, 9]])
def test_runs_do_not_change_anything(halves: Halves, frames: np.ndarray, runs: list[int]) -> None:
    whole, parts = in_runs(halves, frames, [11]), in_runs(halves, frames, runs)
    assert torch.equal(whole.tokens, parts.tokens)
    assert torch.equal(whole.coords, parts.coords)
    assert torch.equal(whole.signals["pixel_change"], parts.signals["pixel_change"])


@pytest.mark.parametrize(("limit", "calls"), [(1, 6), (160, 3), (10_000, 1)])
def test_calls_of_the_tower_are_bounded(
    halves: Halves, frames: np.ndarray, limit: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = in_runs(halves, frames, [11])
    sizes: list[int] = []
    encode = halves.tower.family.encode

    def counted(model: object, pixels: torch.Tensor, *others: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        sizes.append(len(pixels))
        return encode(model, pixels, *others)

    monkeypatch.setattr(halves.tower.family, "encode", counted)
    assert torch.equal(in_runs(halves, frames, [11], limit).tokens, whole.tokens)
    assert len(sizes) == calls and sum(sizes) == 12


def test_coordinates_views_and_seconds(halves: Halves, frames: np.ndarray) -> None:
    whole = in_runs(halves, frames, [4, 7])
    steps, rows, columns = whole.views[0].grid
    expected = [(0, t, y, x) for t in range(steps) for y in range(rows) for x in range(columns)]
    assert [tuple(row) for row in whole.coords.tolist()] == expected
    assert whole.views[0].kind == "frames" and steps == 6
    assert whole.seconds_per_step == 2 / 1.6
    assert not whole.structural.any()
    assert whole.tokens.device.type == "cpu" and not whole.tokens.is_inference()


def test_pixel_change_is_that_of_the_whole_clip(halves: Halves, frames: np.ndarray) -> None:
    expected = pixel_change(None, fill_step(frames), 2, 28)
    assert np.array_equal(in_runs(halves, frames, [2, 4, 5]).signals["pixel_change"].numpy(), expected)


@pytest.mark.filterwarnings("error")
def test_read_only_frames(halves: Halves, frames: np.ndarray) -> None:
    whole = in_runs(halves, frames, [11])
    locked = frames.copy()
    locked.flags.writeable = False
    assert torch.equal(in_runs(halves, locked, [11]).tokens, whole.tokens)
    assert resize_frames(locked, (28, 28)).shape == (11, 28, 28, 3)


def test_a_still_is_one_step_of_the_same_frame(halves: Halves) -> None:
    info = make_info("image")
    size = halves.tower.sizer(info)
    pixels = make_pixels(info, size)
    encoding = halves.tower.start(info, size)
    visual = encoding.push(pixels)
    patches = patches_by_index(np.concatenate([pixels, pixels]))
    grid = torch.tensor([[1, size[0] // PATCH, size[1] // PATCH]])
    with torch.no_grad():
        native = halves.native.model.get_image_features(patches, grid, return_dict=True)
    assert torch.equal(visual.tokens, native.pooler_output[0])
    assert encoding.views[0].kind == "image" and encoding.views[0].grid[0] == 1
    assert visual.seconds_per_step is None and visual.signals == {}


def test_fewer_frames_than_announced(halves: Halves, frames: np.ndarray) -> None:
    encoding = halves.tower.start(make_info(frames=40), frames.shape[1:3])
    encoding.push(frames)
    assert encoding.views[0].grid[0] == 20
    assert encoding.encoded_views[0].grid == (6, *encoding.views[0].grid[1:])


def test_the_tower_half_holds_no_language_model(halves: Halves) -> None:
    names = [name for name, _ in halves.tower.model.named_parameters()]
    assert names and all(name.startswith("model.visual.") for name in names)


def test_what_cannot_be_encoded(halves: Halves, frames: np.ndarray) -> None:
    info, size = make_info(), frames.shape[1:3]
    message = (
        "the method needs the signal 'cls_attention', which .* does not give; "
        "it gives head_mean_keys, hub_attention, keys, .*, received_layers; choose another method"
    )
    with pytest.raises(ModelError, match=message):
        halves.tower.start(info, size, frozenset({"tokens", "cls_attention"}))
    with pytest.raises(ValueError, match="size must be positive multiples of 28"):
        halves.tower.start(info, (30, 56))
    encoding = halves.tower.start(info, size)
    with pytest.raises(ValueError, match="pixels must have shape"):
        encoding.push(frames[:, :28])
    encoding.push(frames[:3])
    with pytest.raises(ValueError, match="only the last run of frames"):
        encoding.push(frames[3:4])


def test_identity(halves: Halves) -> None:
    import json

    identity = halves.tower.identity
    assert json.loads(json.dumps(identity)) == identity
    assert identity["family"] == halves.family and identity["model"] == str(halves.folder)
    assert len(identity["fingerprint"]) == 64 and identity["hidden_size"] == 64 and identity["dtype"] == "float32"
    assert identity["preprocessing"]["video"]["bounds"]["cap_pixels_per_frame"] is False
    assert halves.tower.frames_per_step == 2
