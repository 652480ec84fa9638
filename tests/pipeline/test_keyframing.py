"""Frames that are chosen before the tower: only they are encoded, and they are what they would be in the whole clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tokcli.cache import open_cache
from tokcli.errors import ModelError, UsageError
from tokcli.methods import resolve
from tokcli.models import load_tower
from tokcli.models.describing import describer
from tokcli.models.tower import Encoding
from tokcli.pipeline.compress import compress
from tokcli.pipeline.restore import visual_tokens
from tokcli.recipe import CompressRecipe
from tokcli.types import EncodedItem, VisualTokens


def run(inputs: Path, output: Path, method: str, **more: Any) -> None:
    compress(CompressRecipe(inputs=[str(inputs)], output=str(output), method=method, workers=1, **more))


def of_steps(whole: EncodedItem, steps: list[int]) -> tuple[VisualTokens, torch.Tensor]:
    """The tokens of some steps of an item that has all, and their rows."""
    visual = visual_tokens(whole)
    rows = torch.nonzero(torch.isin(visual.coords[:, 1], torch.tensor(steps))).flatten()
    part = VisualTokens(
        visual.tokens[rows],
        visual.coords[rows],
        visual.views,
        visual.structural[rows],
        seconds_per_step=visual.seconds_per_step,
    )
    return part, rows


@pytest.mark.parametrize("features", ["pixels", "preview"])
def test_tokens_of_chosen_frames_are_those_of_the_whole_clip(
    clips: Path, clip_cache: Path, tmp_path: Path, features: str
) -> None:
    options = {"keyframes.features": features, "keyframes.frames": "3"}
    full = open_cache(clip_cache)
    steps: dict[str, list[int]] = {}
    for then in ("", "dtd", "temporal_merge"):
        method = f"keyframes,{then}".rstrip(",")
        run(clips, tmp_path / f"cache-{then}", method, options=options, tokens_dtype="exact")
        made = open_cache(tmp_path / f"cache-{then}")
        assert set(made.ids()) == set(full.ids()) and made.errors().num_rows == 0
        for item_id in made.ids():
            item, whole = made[item_id], full[item_id]
            # What comes after the choice may leave nothing of a step.
            steps[item_id] = steps.get(item_id) or sorted(set(item.kept.coords[:, 1].tolist()))
            assert len(steps[item_id]) == min(3, whole.views[0].grid[0])
            part, rows = of_steps(whole, steps[item_id])
            expected = resolve(then or "none").compress(part, item_id)
            assert torch.equal(item.kept.tokens, expected.tokens)
            assert torch.equal(item.kept.coords, expected.coords)
            assert torch.equal(item.kept.mass, expected.mass)
            assert torch.equal(item.kept.source, rows[expected.source])
            if expected.assignment is not None and item.kept.assignment is not None:
                assert torch.equal(item.kept.assignment[rows], expected.assignment)
                assert len(item.kept.assignment) == whole.source_tokens
            assert item.views == whole.views and item.source_tokens == whole.source_tokens
            assert np.array_equal(item.times, whole.times) and np.array_equal(item.indices, whole.indices)


def test_the_tower_sees_only_chosen_frames(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    encode = Encoding._encode

    def counted(self: Encoding, pixels: Any) -> Any:
        seen.append(len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(Encoding, "_encode", counted)
    run(clips, tmp_path / "cache", "keyframes", options={"features": "pixels", "frames": "2"})
    cache = open_cache(tmp_path / "cache")
    steps = sum(min(2, cache[item_id].views[0].grid[0]) for item_id in cache.ids())
    assert sum(seen) == steps * load_tower("nano").frames_per_step


def test_other_chunks_give_the_same(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"features": "pixels", "keep": "0.5"}
    run(clips, tmp_path / "one", "keyframes", options=options)
    monkeypatch.setattr("tokcli.pipeline.keyframing.STEPS_AT_A_TIME", 1)
    run(clips, tmp_path / "two", "keyframes", options=options)
    one, two = open_cache(tmp_path / "one"), open_cache(tmp_path / "two")
    for item_id in one.ids():
        assert torch.equal(one[item_id].kept.tokens, two[item_id].kept.tokens)
        assert torch.equal(one[item_id].kept.source, two[item_id].kept.source)


def test_a_clip_that_cannot_meet_the_budget_is_an_error_of_its_own(clips: Path, tmp_path: Path) -> None:
    run(clips, tmp_path / "cache", "keyframes", max_tokens=3, options={"features": "pixels"})
    errors = open_cache(tmp_path / "cache").errors().to_pylist()
    assert len(errors) == len([path for path in clips.iterdir() if path.suffix != ".jsonl"])
    assert all("keeps at least a step" in error["message"] and error["stage"] == "method" for error in errors)


def test_another_cache_cannot_want_other_frames(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'keyframes' of .* works before there are tokens"):
        run(
            clips,
            tmp_path / "cache",
            "keyframes",
            options={"features": "pixels"},
            also=[f"dtd={tmp_path / 'other'}"],
        )


def frames(count: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, 56, 84, 3), dtype=np.uint8)


def test_an_image_model_describes_frames(tmp_path: Path) -> None:
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16
    )
    model = transformers.CLIPVisionModel(config).eval()
    model.save_pretrained(tmp_path)
    settings = '{"size": {"height": 32, "width": 32}, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}'
    (tmp_path / "preprocessor_config.json").write_text(settings)
    describe = describer(str(tmp_path), load_tower("nano"))
    features = describe(frames(5))
    assert features.shape == (3, 16)
    np.testing.assert_allclose(features[2], describe(frames(5)[4:])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("features", ["pixels", "preview"])
def test_a_step_is_described_by_all_of_its_frames(features: str) -> None:
    describe = describer(features, load_tower("nano"))
    whole = describe(frames(6))
    assert len(whole) == 3 and whole.dtype == np.float32
    parts = [describe(frames(6)[start : start + 2]) for start in (0, 2, 4)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-4, atol=1e-6)


def test_an_unknown_image_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"features=.*is not 'tokens', 'pixels', 'preview' or an image model"):
        describer(str(tmp_path / "no-such"), load_tower("nano"))
