"""From files to a cache and to answers, for families that store more than a grid of tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from family_tiny import make_family, open_family
from PIL import Image
from qwen3_vl_tiny import QWEN3_VL
from tiles_tiny import ONEVISION, TOKENS

from tokcli.cache import Cache, open_cache, verify_cache
from tokcli.errors import MethodError, ModelError
from tokcli.models import Request, load_language_model
from tokcli.pipeline.compress import compress
from tokcli.pipeline.preflight import check_request, load_job
from tokcli.pipeline.reduction import Reduction
from tokcli.pipeline.restore import visual_tokens
from tokcli.recipe import CompressRecipe
from tokcli.types import VisualTokens


@pytest.fixture(scope="module")
def media(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip and a still."""
    folder = tmp_path_factory.mktemp("media")
    clip = sorted(clips.glob("*.mp4"))[0]
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    pixels = np.random.default_rng(0).integers(0, 256, (70, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "still.png")
    return folder


def caches(model: Path, media: Path, folder: Path, *methods: str) -> list[Cache]:
    """All tokens, then those of other methods from the same encoding, each ``NAME@BUDGET`` or ``NAME:OPTION=VALUE``."""
    outputs = [folder / str(number) for number in range(1 + len(methods))]
    also = [f"{method}={output}" for method, output in zip(methods, outputs[1:])]
    recipe = CompressRecipe(
        inputs=[str(media)],
        output=str(outputs[0]),
        model=str(model),
        method="none",
        workers=1,
        tokens_dtype="float32",
        also=also,
    )
    summary = compress(recipe)
    assert (summary.done, summary.failed) == (2, 0)
    assert not any(verify_cache(output) for output in outputs)
    opened = [open_cache(output) for output in outputs]
    numbers = [
        part.numel() for item in opened[0] for part in (item.kept.tokens, item.kept.deepstack) if part is not None
    ]
    assert summary.token_bytes == 4 * sum(numbers)  # the first keeps all tokens
    return opened


def test_levels_reach_the_cache_and_the_language_model(media: Path, tmp_path: Path) -> None:
    halves = open_family(tmp_path / "model", QWEN3_VL)
    full, streamed, whole = caches(halves.folder, media, tmp_path, "dtd:threshold=0.5", "pool2d@0.5")
    assert full.manifest.configuration["model"]["deepstack_levels"] == 2
    for item in full:
        levels = item.kept.deepstack
        assert levels is not None and levels.shape == (len(item.kept), 2, item.kept.tokens.shape[1])
        selected, merged = (next(other for other in cache if other.id == item.id).kept for cache in (streamed, whole))
        assert selected.deepstack is not None and merged.deepstack is not None and merged.assignment is not None
        assert torch.equal(selected.deepstack, levels[selected.source])
        for row in range(len(merged)):
            mean = levels[merged.assignment == row].mean(dim=0)
            torch.testing.assert_close(merged.deepstack[row], mean, rtol=0, atol=1e-5)
        assert torch.equal(visual_tokens(item).signals["deepstack"], levels)
    answers = halves.language.generate([Request([item], "what is it ?") for item in whole], max_new_tokens=4)
    assert all(answer.token_ids for answer in answers)
    bare = [replace(item, kept=replace(item.kept, deepstack=None)) for item in whole]
    with pytest.raises(ModelError, match="has no DeepStack levels, which this model takes"):
        halves.language.generate([Request(bare, "what is it ?")])


def test_newlines_are_structural_and_stay(media: Path, tmp_path: Path) -> None:
    model = make_family(tmp_path / "model", ONEVISION)
    full, few, streamed = caches(model, media, tmp_path, "uniform@0.1", "dtd:threshold=0.5")
    language = load_language_model(str(model), device="cpu")
    for item in full:
        newlines = visual_tokens(item).structural
        newline = language.model.model.image_newline
        assert torch.equal(item.kept.tokens[newlines], newline.detach().expand(int(newlines.sum()), -1))
        if item.kind == "video":
            (view,) = item.views
            assert view.grid[1:] == (TOKENS // 2, TOKENS // 2)
            assert newlines.nonzero().flatten().tolist() == [view.num_tokens]
        else:
            thumbnail, crop = item.views
            assert thumbnail.grid == (1, TOKENS, TOKENS) and item.frame_size == (70, 120)
            assert int(newlines.sum()) == crop.grid[1]
            assert len(item.kept) == thumbnail.num_tokens + crop.num_tokens + crop.grid[1]
        for cache in (few, streamed):
            kept = next(other for other in cache if other.id == item.id).kept
            assert set(newlines.nonzero().flatten().tolist()) <= set(kept.source.tolist())
    answers = language.generate([Request(list(few), "what is it ?")], max_new_tokens=4)
    assert answers[0].visual_tokens == sum(len(item.kept) for item in few)


def test_signals_are_stored_with_newlines_too(media: Path, tmp_path: Path) -> None:
    model = make_family(tmp_path / "model", ONEVISION)
    _, kept = caches(model, media, tmp_path, "none:signals=received_attention,keys")
    for item in kept:
        visual = visual_tokens(item)
        assert visual.signals["received_attention"].shape == (len(visual),)
        assert visual.signals["keys"].shape == (len(visual), 32)
        for values in visual.signals.values():
            assert not bool(values[visual.structural].any()) and bool((values[~visual.structural] != 0).all())


def test_towers_of_one_size_refuse_smaller_frames(media: Path, tmp_path: Path) -> None:
    model = make_family(tmp_path / "model", ONEVISION)
    with pytest.raises(MethodError, match=r"makes frames smaller, .* takes them in one size only; choose a method"):
        load_job(
            check_request(
                CompressRecipe(
                    inputs=[str(media)], output=str(tmp_path / "small"), model=str(model), method="downsample", keep=0.5
                )
            )
        )


def test_a_method_that_fails_on_the_separator_takes_none_from_the_others(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "clip.mp4").write_bytes((media / "clip.mp4").read_bytes())
    model = str(make_family(tmp_path / "model", ONEVISION))
    push = Reduction.push

    def failing(self: Reduction, chunk: VisualTokens) -> None:
        if self.compressor.name == "dtd" and bool(chunk.structural.any()):
            raise MethodError("no separators, please")
        push(self, chunk)

    monkeypatch.setattr(Reduction, "push", failing)
    outputs = {name: str(tmp_path / name) for name in ("dtd", "none", "uniform")}
    also = [f"none={outputs['none']}", f"uniform@0.5={outputs['uniform']}"]
    inputs = [str(tmp_path / "clips")]
    summary = compress(
        CompressRecipe(inputs=inputs, output=outputs["dtd"], method="dtd", model=model, workers=1, also=also)
    )
    assert (summary.failed, *(one.failed for one in summary.also)) == (1, 0, 0)
    (all_tokens,), (half,) = open_cache(outputs["none"]), open_cache(outputs["uniform"])
    assert len(all_tokens.kept) == all_tokens.source_tokens == half.source_tokens
    assert all_tokens.source_tokens == sum(view.num_tokens for view in all_tokens.views) + 1
    assert int(half.kept.source.max()) == all_tokens.source_tokens - 1
