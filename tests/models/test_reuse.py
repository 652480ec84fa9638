"""Unchanged frames and parts of frames are not encoded again, and what that must not change is not changed."""

from __future__ import annotations

import importlib
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from native_reference import PATCH, TEMPORAL, patches_by_index
from tiny_checkpoints import Halves, make_info, make_pixels

from tokcli.errors import ModelError
from tokcli.models.base import TOWER_SIGNALS
from tokcli.models.reuse import unit_change
from tokcli.models.units import UnitAdapter

WANTED = frozenset({"tokens", "pixel_change", *TOWER_SIGNALS})


def still_clip(tower: Any, pattern: str, frames_per_step: int) -> np.ndarray:
    """A clip with a step for each letter; equal letters are equal steps."""
    info = make_info(frames=len(pattern) * frames_per_step)
    scenes = {letter: make_pixels(info, tower.sizer(info), ord(letter))[:frames_per_step] for letter in set(pattern)}
    return np.concatenate([scenes[letter] for letter in pattern])


def in_runs(
    tower: Any, frames: np.ndarray, runs: list[int], reuse: float | None, wanted: frozenset[str] = WANTED
) -> tuple[dict[str, torch.Tensor], Any]:
    """Tokens and signals by name, and the encoding."""
    encoding = tower.start(make_info(frames=len(frames)), frames.shape[1:3], wanted, reuse)
    ends = np.cumsum(runs)
    parts = [encoding.push(frames[end - run : end]) for run, end in zip(runs, ends)]
    assert encoding.encoded_views == encoding.views
    found = {name: torch.cat([part.signals[name] for part in parts]) for name in parts[0].signals}
    return {"tokens": torch.cat([part.tokens for part in parts]), **found}, encoding


@pytest.mark.parametrize("runs", [[24], [2] * 12, [4, 10, 2, 8], [6, 18]])
def test_leaving_out_equal_steps_changes_no_bit(halves: Halves, runs: list[int]) -> None:
    frames = still_clip(halves.tower, "AAABCCCCAABB", 2)
    plain, _ = in_runs(halves.tower, frames, [24], None)
    reused, encoding = in_runs(halves.tower, frames, runs, 0)
    assert plain.keys() == reused.keys() == WANTED
    for name, values in plain.items():
        assert torch.equal(values, reused[name]), name
    assert encoding.reused == 7 * encoding.tokens // 12 > 0


@pytest.mark.parametrize("runs", [[12], [1] * 12, [5, 7]])
def test_llava_gives_what_it_gives_in_other_runs(llava: Halves, runs: list[int]) -> None:
    """Its frames are rows of one product, which rounds by how many there are: as between runs of other lengths."""
    frames = still_clip(llava.tower, "AAABCCCCAABB", 1)
    plain, _ = in_runs(llava.tower, frames, [12], None)
    reused, encoding = in_runs(llava.tower, frames, runs, 0)
    for name, values in plain.items():
        assert torch.allclose(values, reused[name], rtol=0, atol=1e-6 * max(1.0, float(values.abs().max()))), name
    assert encoding.reused == 7 * 9
    alone, _ = in_runs(llava.tower, frames, [1] * 12, None)
    one_by_one, _ = in_runs(llava.tower, frames, [1] * 12, 0)
    assert all(torch.equal(values, one_by_one[name]) for name, values in alone.items())


def test_equal_steps_are_not_given_to_the_tower(halves: Halves, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    encode = halves.tower.family.encode

    def counted(model: object, pixels: torch.Tensor, *others: Any) -> Any:
        given.append(len(pixels))
        return encode(model, pixels, *others)

    monkeypatch.setattr(halves.tower.family, "encode", counted)
    in_runs(halves.tower, still_clip(halves.tower, "AAAAB", 2), [10], 0)
    assert given == [4]


def test_one_other_value_in_one_frame_is_another_step(halves: Halves) -> None:
    frames = still_clip(halves.tower, "AAA", 2)
    frames[3, 5, 7, 1] ^= 1
    plain, _ = in_runs(halves.tower, frames, [6], None)
    reused, encoding = in_runs(halves.tower, frames, [6], 0)
    assert torch.equal(plain["tokens"], reused["tokens"]) and encoding.reused == 0


@pytest.mark.parametrize("reuse", [0.0, 0.01])
def test_calls_in_any_order_and_in_threads(halves: Halves, reuse: float) -> None:
    frames = still_clip(halves.tower, "AAABCCCCAABB" * 4, 2)
    frames[20:40, :28, :28] = 7
    whole, _ = in_runs(halves.tower, frames, [len(frames)], reuse)

    def prepared() -> list[Any]:
        encoding = halves.tower.start(make_info(frames=len(frames)), frames.shape[1:3], WANTED, reuse)
        return [encoding.prepare(frames[first : first + 2]) for first in range(0, len(frames), 2)]

    # Parts of steps are rows of one product, which rounds by how many there are.
    atol = 1e-6 if reuse else 0.0
    backwards = [run().tokens for run in reversed(prepared())]
    assert torch.allclose(torch.cat(backwards[::-1]), whole["tokens"], rtol=0, atol=atol)
    runs = prepared()
    order = random.Random(3).sample(range(len(runs)), len(runs))
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(order, pool.map(lambda number: runs[number](), order)))
    parts = [found[number] for number in range(len(runs))]
    assert torch.equal(torch.cat([part.tokens for part in parts]), torch.cat(backwards[::-1]))
    keys = torch.cat([part.signals["keys"] for part in parts])
    assert torch.allclose(keys, whole["keys"], rtol=0, atol=10 * atol)


def test_a_run_that_fails_fails_those_after_it(halves: Halves, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = still_clip(halves.tower, "AAAA", 2)
    encoding = halves.tower.start(make_info(frames=8), frames.shape[1:3], WANTED, 0)
    first, second = encoding.prepare(frames[:4]), encoding.prepare(frames[4:])

    def broken(*_arguments: Any) -> Any:
        raise RuntimeError("no memory")

    monkeypatch.setattr(halves.tower.family, "encode", broken)
    with pytest.raises(RuntimeError, match="no memory"):
        first()
    with pytest.raises(ModelError, match="frames before these could not be encoded"):
        second()


def test_all_units_chosen_is_encoding_the_frame(halves: Halves) -> None:
    family, tower = halves.tower.family, halves.tower
    assert isinstance(family, UnitAdapter)
    frames = torch.from_numpy(still_clip(tower, "ABC", 2))
    settings = tower.preprocessing.video
    rows, columns = frames.shape[1] // 28, frames.shape[2] // 28
    with torch.inference_mode():
        tokens, signals = family.encode(tower.model, frames, settings, TOWER_SIGNALS)
        chosen = torch.ones(3, rows, columns, dtype=torch.bool)
        again, same = family.encode_units(tower.model, frames, settings, TOWER_SIGNALS, chosen)
    assert torch.equal(tokens, again)
    assert signals.keys() == same.keys()
    assert all(torch.equal(values, same[name]) for name, values in signals.items())


def test_chosen_units_see_one_another_and_nothing_else(halves: Halves) -> None:
    """Against the native tower on the whole frames with eager attention, in which the other keys were taken out."""
    from transformers import AutoModelForImageTextToText
    from transformers.vision_utils import get_vision_window_index

    family, tower = halves.tower.family, halves.tower
    assert isinstance(family, UnitAdapter)
    frames = still_clip(tower, "ABC", 2)
    rows, columns = frames.shape[1] // 28, frames.shape[2] // 28
    chosen = torch.from_numpy(np.random.default_rng(5).random((3, rows, columns)) < 0.4)
    chosen[1] = False
    chosen[1, 2, 1] = True
    with torch.inference_mode():
        tokens, signals = family.encode_units(
            tower.model, torch.from_numpy(frames), tower.preprocessing.video, TOWER_SIGNALS, chosen
        )

    native = AutoModelForImageTextToText.from_pretrained(halves.folder, attn_implementation="eager").eval()
    module = importlib.import_module(type(native.model.visual).__module__)
    grid = torch.tensor([[3, 2 * rows, 2 * columns]])
    flat = chosen.flatten()
    if halves.family == "qwen2_5_vl":
        order, _ = get_vision_window_index(grid, spatial_merge_size=2, window_size=56, patch_size=PATCH)
        flat = flat[order]
    visible = flat.repeat_interleave(4)
    plain, at = module.eager_attention_forward, {"row": 0}

    def seeing(attention: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *rest: Any, **more: Any):  # type: ignore[no-untyped-def]
        first, last = at["row"], at["row"] + query.shape[2]
        at["row"] = last % len(visible)
        some = visible[first:last]
        if not some.any():
            return torch.zeros_like(query).transpose(1, 2), None
        return plain(attention, query, key[:, :, some], value[:, :, some], *rest, **more)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(module, "eager_attention_forward", seeing)
        output = native.model.get_video_features(patches_by_index(frames), grid, return_dict=True)
    expected = torch.cat(list(output.pooler_output))[chosen.flatten()]
    assert tokens.shape == expected.shape
    assert float((tokens - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    by_step = chosen.flatten(1).sum(dim=1).tolist()
    assert [float(part.sum()) for part in signals["meanq"].split(by_step)] == pytest.approx([1, 1, 1])
    assert len(signals["keys"]) == len(tokens)


@pytest.mark.parametrize("runs", [[12], [2] * 6, [4, 8]])
def test_units_within_the_threshold_keep_their_tokens(halves: Halves, runs: list[int]) -> None:
    """A step in which two squares change: they are encoded, the others are those of the step before."""
    frames = still_clip(halves.tower, "AAABBB", 2)
    frames[2:6, :28, 28:56] = 0
    frames[4:6, 28:56, :28] ^= 1  # every value by one grey level
    columns = frames.shape[2] // 28
    whole, encoding = in_runs(halves.tower, frames, runs, 1.5 / 255)
    tokens = whole["tokens"].view(6, -1, 64)
    per_step = tokens.shape[1]
    moved = (tokens[1:] != tokens[:-1]).any(dim=2)
    assert moved[0].nonzero().flatten().tolist() == [1] and not moved[1].any()
    assert moved[2].all() and not moved[3:].any()
    assert encoding.tokens == 6 * per_step and encoding.reused == 6 * per_step - 2 * per_step - 1
    finer, _ = in_runs(halves.tower, frames, runs, 0.5 / 255)
    changed = (finer["tokens"].view(6, -1, 64)[2] != finer["tokens"].view(6, -1, 64)[1]).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [columns]
    # Parts of steps are rows of one product, which rounds by how many there are.
    again, _ = in_runs(halves.tower, frames, [12], 1.5 / 255)
    assert torch.allclose(whole["tokens"], again["tokens"], rtol=0, atol=1e-6)


def test_slow_drift_does_not_go_unnoticed(halves: Halves) -> None:
    """One grey level a step is under a threshold of two and a half; the third is over it, counted from the first."""
    first = still_clip(halves.tower, "A", 2) // 2
    frames = np.concatenate([first + step for step in range(6)]).astype(np.uint8)
    tokens = in_runs(halves.tower, frames, [12], 2.5 / 255)[0]["tokens"].view(6, -1, 64)
    assert [bool((tokens[step] == tokens[step - 1]).all()) for step in range(1, 6)] == [True, True, False, True, True]


def test_change_of_a_unit_by_hand() -> None:
    before = np.zeros((TEMPORAL, 4, 6, 3), dtype=np.uint8)
    after = before.copy()
    after[0, 0, 0] = 255  # a pixel of 4 in one of two frames
    after[:, 2:, 4:] = 51
    expected = [[1 / 8, 0, 0], [0, 0, 0.2]]
    assert unit_change(before, after, 2) == pytest.approx(np.array(expected))
    assert np.array_equal(unit_change(after, before, 2), unit_change(before, after, 2))


def test_what_cannot_be_reused(llava: Halves, halves: Halves) -> None:
    info = make_info(frames=2)
    with pytest.raises(ModelError, match=r"llava towers encode whole frames only.*use threshold 0"):
        llava.tower.start(info, llava.tower.sizer(info), frozenset(), 0.01)
    still = make_info("image")
    size = halves.tower.sizer(still)
    pixels = make_pixels(still, size)
    plain = halves.tower.start(still, size).push(pixels)
    assert torch.equal(halves.tower.start(still, size, frozenset(), 0.5).push(pixels).tokens, plain.tokens)
