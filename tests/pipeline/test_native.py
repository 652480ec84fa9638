"""From a video file to an answer: the cache with all tokens says what the whole model says from pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tokcli.cache import open_cache
from tokcli.media import Limits, Sampling, open_media
from tokcli.models import Request, load_language_model, resolve_checkpoint
from tokcli.models.preprocess import resize_frames, to_patches
from tokcli.models.settings import read_preprocessing
from tokcli.pipeline.compress import compress
from tokcli.recipe import CompressRecipe

PROMPTS = ("What color is the circle?", "How many objects are there?", "Which way does the square move?")


@pytest.fixture(scope="module")
def float32_cache(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("native") / "cache"
    compress(CompressRecipe(inputs=[str(clips)], output=str(cache), method="none", dtype="float32", workers=1))
    return cache


def test_answers_from_the_cache_are_the_native_ones(float32_cache: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    folder = resolve_checkpoint("nano")
    native = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    language = load_language_model("nano", dtype="float32", device="cpu")
    settings = read_preprocessing(folder).video
    cache = open_cache(float32_cache)
    for item in cache:
        with open_media(item.path, sampling=Sampling(fps=1.0), limits=Limits(), decoder="pyav") as reader:
            pixels = np.concatenate([frames.pixels for frames in reader.chunks(64)])
        resized = resize_frames(pixels, item.frame_size, settings.resample)
        if len(resized) % 2:
            resized = np.concatenate([resized, resized[-1:]])
        steps, rows, columns = item.views[0].grid
        grid = torch.tensor([[steps, rows * settings.merge_size, columns * settings.merge_size]])
        patches = to_patches(torch.from_numpy(resized), settings)
        for prompt in PROMPTS:
            content = [{"type": "video"}, {"type": "text", "text": prompt}]
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            placeholders = "<|video_pad|>" * (steps * rows * columns)
            ids = tokenizer(text.replace("<|video_pad|>", placeholders), return_tensors="pt").input_ids
            with torch.no_grad():
                expected = native.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    pixel_values_videos=patches,
                    video_grid_thw=grid,
                    second_per_grid_ts=torch.tensor([2.0]),
                    mm_token_type_ids=(ids == native.config.video_token_id).int() * 2,
                    max_new_tokens=6,
                    do_sample=False,
                )[0, ids.shape[1] :]
            answer = language.generate([Request([item], prompt)], max_new_tokens=6, scheme="hf")[0]
            assert list(answer.token_ids) == expected.tolist(), (item.id, prompt)


def test_positions_scheme_matters(float32_cache: Path) -> None:
    """The comparison above could not fail if positions did nothing: logits under the two schemes must differ."""
    language = load_language_model("nano", dtype="float32", device="cpu")
    cache = open_cache(float32_cache)
    item = next(iter(cache))
    logits = []
    for scheme in ("hf", "original"):
        with torch.no_grad():
            logits.append(language.model(**language.prepare([Request([item], PROMPTS[0])], scheme)).logits[0, -1])
    assert not torch.allclose(logits[0], logits[1], atol=1e-4)
