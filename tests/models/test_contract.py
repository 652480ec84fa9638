"""Each family: what the two halves say is what the whole model says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from native_reference import (
    QUESTION,
    keep_rows,
    logits_after_deletion,
    native_inputs,
    original_positions,
)
from tiny_checkpoints import Halves, encode_item, make_info, make_pixels

from tokcli.models import Request

LAYOUTS = {
    "video": ["video"],
    "image": ["image"],
    "image, video, image": ["image", "video", "image"],
}
SHAPES = [(100, 150), (150, 90), (60, 60)]


@pytest.fixture(params=LAYOUTS)
def scene(request: pytest.FixtureRequest, halves: Halves) -> dict[str, Any]:
    """The same media for both sides: cached items, and the whole model's inputs."""
    items, media = [], []
    for seed, kind in enumerate(LAYOUTS[request.param]):
        height, width = SHAPES[seed]
        info = make_info(kind, frames=7, height=height, width=width)
        item = encode_item(halves.tower, info, seed=seed, name=f"item-{seed}")
        items.append(item)
        media.append((kind, make_pixels(info, item.frame_size, seed), item.seconds_per_step))
    inputs = native_inputs(halves.native, halves.language.tokenizer, media)
    per_second = getattr(halves.native.config.vision_config, "tokens_per_second", None)
    per_second = per_second if halves.family == "qwen2_5_vl" else None
    return {"items": items, "inputs": inputs, "original": original_positions(inputs, per_second)}


@torch.no_grad()
def prefill(halves: Halves, items: list[Any], scheme: str) -> torch.Tensor:
    """Logits (K, vocabulary) of the language half."""
    return halves.language.model(**halves.language.prepare([Request(items, QUESTION)], scheme)).logits[0]


@torch.no_grad()
def native_prefill(halves: Halves, scene: dict[str, Any], scheme: str) -> torch.Tensor:
    halves.native.model.rope_deltas = None
    extra = {"position_ids": scene["original"]} if scheme == "original" else {}
    return halves.native(**scene["inputs"], **extra).logits[0]


def subset(items: list[Any]) -> tuple[list[Any], torch.Tensor]:
    """About two fifths of every item's tokens, and the mask over all of them."""
    kept, masks = [], []
    for seed, item in enumerate(items):
        mask = np.random.default_rng(seed).random(len(item.kept)) < 0.4
        kept.append(keep_rows(item, np.flatnonzero(mask)))
        masks.append(torch.from_numpy(mask))
    return kept, torch.cat(masks)


@pytest.mark.parametrize("scheme", ["hf", "original"])
def test_all_tokens_give_the_logits_of_the_whole_model(
    halves: Halves, scene: dict[str, Any], scheme: str, difference: Callable[..., float]
) -> None:
    own, native = prefill(halves, scene["items"], scheme), native_prefill(halves, scene, scheme)
    assert difference(halves.family, "all_tokens", own, native) <= 1e-6


@pytest.mark.parametrize("scheme", ["hf", "original"])
def test_all_tokens_give_the_greedy_answer_of_the_whole_model(
    halves: Halves, scene: dict[str, Any], scheme: str
) -> None:
    extra = {"position_ids": scene["original"]} if scheme == "original" else {}
    inputs = scene["inputs"]
    native = halves.native.generate(**inputs, **extra, max_new_tokens=12, do_sample=False)
    answer = halves.language.generate([Request(scene["items"], QUESTION)], max_new_tokens=12, scheme=scheme)[0]
    assert list(answer.token_ids) == native[0, inputs["input_ids"].shape[1] :].tolist()[: len(answer.token_ids)]
    assert answer.prompt_tokens == inputs["input_ids"].shape[1]
    assert answer.visual_tokens == sum(len(item.kept) for item in scene["items"])


def test_a_subset_is_the_full_sequence_with_rows_deleted(
    halves: Halves, scene: dict[str, Any], difference: Callable[..., float]
) -> None:
    items, keep = subset(scene["items"])
    features = torch.cat([item.kept.tokens for item in scene["items"]])
    reference = logits_after_deletion(halves.native, scene["inputs"], scene["original"], features, keep)
    assert difference(halves.family, "kept_subset", prefill(halves, items, "original"), reference) <= 1e-6


def test_a_small_change_of_the_tokens_shows(halves: Halves, scene: dict[str, Any]) -> None:
    nudged = [replace(item, kept=replace(item.kept, tokens=item.kept.tokens + 1e-3)) for item in scene["items"]]
    difference = prefill(halves, nudged, "original") - prefill(halves, scene["items"], "original")
    assert float(difference.abs().max()) > 1e-4


def test_renumbered_positions_show(halves: Halves, scene: dict[str, Any]) -> None:
    items, _ = subset(scene["items"])
    difference = prefill(halves, items, "compact") - prefill(halves, items, "original")
    assert float(difference[-1].abs().max()) > 1e-3


def test_each_token_matters(halves: Halves, scene: dict[str, Any]) -> None:
    """Dropping a single row moves the answer's logits, so equality above is about all rows."""
    items = scene["items"]
    short = [keep_rows(items[0], range(1, len(items[0].kept))), *items[1:]]
    difference = prefill(halves, short, "original")[-1] - prefill(halves, items, "original")[-1]
    assert float(difference.abs().max()) > 1e-5


def test_schemes_differ_after_long_video_only(halves: Halves, scene: dict[str, Any]) -> None:
    difference = prefill(halves, scene["items"], "hf") - prefill(halves, scene["items"], "original")
    # Qwen2-VL's four steps are one position apart and end before the frame's five columns do.
    longer = halves.family == "qwen2_5_vl" and any(item.kind == "video" for item in scene["items"])
    assert (float(difference.abs().max()) > 1e-3) == longer
