"""Idefics3, SmolVLM and Gemma 3: from files to a cache and to answers, and what their configuration files may say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family_tiny import Tiny, make_family
from gemma_tiny import GEMMA3
from idefics_tiny import IDEFICS3, LONGEST, SIDE, SMOLVLM, TOKENS
from PIL import Image
from tiny_checkpoints import encode_item, make_info

from tokcli.cache import open_cache, verify_cache
from tokcli.errors import ModelError
from tokcli.models import Request, load_language_model, load_tower, resize_frames
from tokcli.pipeline.compress import compress
from tokcli.recipe import CompressRecipe


def changed(folder: Path, file: str, **values: Any) -> Path:
    """The checkpoint with other values in one of its files, None taking a key out."""
    content = json.loads((folder / file).read_text()) | values
    (folder / file).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return folder


@pytest.mark.parametrize("tiny", [IDEFICS3, SMOLVLM, GEMMA3], ids=lambda tiny: tiny.family)
def test_files_to_answers(tiny: Tiny, clips: Path, tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    (media / "clip.mp4").write_bytes(sorted(clips.glob("*.mp4"))[0].read_bytes())
    pixels = np.random.default_rng(0).integers(0, 256, (70, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(media / "still.png")
    model = str(make_family(tmp_path / "model", tiny))
    outputs = [str(tmp_path / name) for name in ("full", "some", "merged")]
    recipe = CompressRecipe(
        inputs=[str(media)],
        output=outputs[0],
        model=model,
        method="none",
        workers=1,
        tokens_dtype="float32",
        also=[f"uniform@0.3={outputs[1]}", f"pool2d@0.3={outputs[2]}"],
    )
    summary = compress(recipe)
    assert (summary.done, summary.failed) == (2, 0)
    assert not any(verify_cache(output) for output in outputs)
    full, *fewer = [open_cache(output) for output in outputs]
    still = next(item for item in full if item.kind == "image")
    if tiny is GEMMA3:
        assert [(view.kind, view.grid) for view in still.views] == [("image", (1, 2, 2))]
    else:
        # 140 x 82 pixels, rounded up to 2 x 3 tiles.
        grids = [(view.kind, view.grid) for view in still.views]
        assert grids == [("crop", (1, 2 * TOKENS, 3 * TOKENS)), ("thumbnail", (1, TOKENS, TOKENS))]
    tower = load_tower(model, device="cpu")
    encoding = tower.start(make_info("image", height=70, width=120), still.frame_size)
    own = encoding.push(resize_frames(pixels[None], still.frame_size, tower.sizer.resample))
    assert torch.equal(still.kept.tokens, own.tokens) and torch.equal(still.kept.coords, own.coords)
    language = load_language_model(model, device="cpu")
    for cache in fewer:
        language.check(cache.manifest.configuration["model"])
        answers = language.generate([Request(list(cache), "what is it ?")], max_new_tokens=4)
        assert answers[0].visual_tokens == sum(len(item.kept) for item in cache) > 0


def test_neighbours_of_other_tiles_are_neighbours_in_the_grid(tmp_path: Path) -> None:
    """A change in one tile of the canvas moves the tokens of its rectangle of the grid, and those of the whole."""
    tower = load_tower(str(make_family(tmp_path, SMOLVLM)), device="cpu")
    info = make_info("image", height=2 * SIDE, width=3 * SIDE)
    before = np.random.default_rng(0).integers(0, 256, (1, 2 * SIDE, 3 * SIDE, 3), dtype=np.uint8)
    after = before.copy()
    after[:, SIDE + 8 : -8, SIDE + 8 : 2 * SIDE - 8] //= 2
    first, second = (tower.start(info, (2 * SIDE, 3 * SIDE)).push(pixels).tokens for pixels in (before, after))
    moved = (first != second).any(dim=1)
    crop = moved[: 6 * TOKENS**2].view(2 * TOKENS, 3 * TOKENS)
    assert crop[TOKENS:, TOKENS : 2 * TOKENS].all() and moved[6 * TOKENS**2 :].all()
    assert int(crop.sum()) == TOKENS**2


def test_stills_that_are_not_cut(tmp_path: Path) -> None:
    folder = changed(make_family(tmp_path, SMOLVLM), "preprocessor_config.json", do_image_splitting=False)
    item = encode_item(load_tower(str(folder), device="cpu"), make_info("image"))
    assert [(view.kind, view.grid) for view in item.views] == [("thumbnail", (1, TOKENS, TOKENS))]
    language = load_language_model(str(folder), device="cpu")
    text = "<fake_token_around_image><global-img>" + "<image>" * TOKENS**2 + "<fake_token_around_image>"
    expected = language.tokenizer(f"<|im_start|>User:{text}what ?<end_of_utterance>\nAssistant:").input_ids
    assert language.prompt(Request([item], "what ?")).ids.tolist() == expected


def test_long_clips_are_told_in_hours_and_minutes(tmp_path: Path) -> None:
    folder = str(make_family(tmp_path, SMOLVLM))
    item = encode_item(load_tower(folder, device="cpu"), make_info(frames=2))
    item = replace(item, indices=np.array([25 * 59, 25 * 3723 + 24]), duration_seconds=3725.9)
    language = load_language_model(folder, device="cpu")
    words = language.tokenizer.decode(language.prompt(Request([item], "what ?", system="be short")).ids)
    assert words.startswith(
        "<|im_start|>System: be short<end_of_utterance>\nUser: You are provided the following series"
    )
    assert "of two frames from a 1:02:05 [H:MM:SS] video.\n\nFrame from 00:59:<fake_token" in words
    assert "<fake_token_around_image>\nFrame from 62:03:<fake_token_around_image><global-img>" in words
    assert words.endswith("<fake_token_around_image>\n\nwhat ?<end_of_utterance>\nAssistant:")


def test_sizes_of_video_as_older_files_have_them(tmp_path: Path) -> None:
    folder = make_family(tmp_path, SMOLVLM)
    assert load_tower(str(folder), device="cpu").sizer(make_info(height=100, width=200)) == (70, LONGEST)
    sampling = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": SIDE}}
    changed(folder, "preprocessor_config.json", video_sampling=sampling)
    assert load_tower(str(folder), device="cpu").sizer(make_info(height=100, width=200)) == (28, SIDE)


@pytest.mark.parametrize(
    ("tiny", "file", "values", "message"),
    [
        (
            SMOLVLM,
            "preprocessor_config.json",
            {"max_image_size": {"longest_edge": 64}},
            "tiles of 64 pixels .* takes 56",
        ),
        (IDEFICS3, "preprocessor_config.json", {"size": {"height": 9, "width": 9}}, "size must name the longest_edge"),
        (IDEFICS3, "config.json", {"scale_factor": 3}, "scale_factor 3 doesn't divide the 8 patches"),
        (GEMMA3, "preprocessor_config.json", {"do_pan_and_scan": True}, "do_pan_and_scan=true.*set it to false"),
        (
            GEMMA3,
            "preprocessor_config.json",
            {"size": {"height": 9, "width": 9}},
            "tiles of 9 pixels, the tower takes 28",
        ),
        (GEMMA3, "config.json", {"mm_tokens_per_image": 5}, "mm_tokens_per_image 5 is no square grid"),
    ],
)
def test_files_that_contradict(tiny: Tiny, file: str, values: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = changed(make_family(tmp_path, tiny), file, **values)
    with pytest.raises(ModelError, match=message) as caught:
        load_tower(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_beginning_that_the_template_writes_is_not_written_twice(tmp_path: Path) -> None:
    folder = make_family(tmp_path, GEMMA3)
    language = load_language_model(str(folder), device="cpu")
    language.tokenizer.bos_token = "<|endoftext|>"
    language.tokenizer.add_bos_token = True
    ids = language.prompt(Request([], "what ?")).ids.tolist()
    assert ids.count(language.tokenizer.bos_token_id) == 1 and ids[0] == language.tokenizer.bos_token_id
