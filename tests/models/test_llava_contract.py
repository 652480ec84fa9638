"""LLaVA: what the two halves say is what the whole model says, from pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from llava_tiny import TOKENS, logits_after_deletion, native_inputs, subset
from native_reference import QUESTION, keep_rows
from stepwise import STEPS, check_each_step, check_ragged_batch, ragged_requests
from tiny_checkpoints import Halves, encode_item, make_info, make_pixels

from tokcli.models import Request
from tokcli.models.loading import NotLoaded

LAYOUTS = {"video": ["video"], "image": ["image"], "image, video, image": ["image", "video", "image"]}


@pytest.fixture(params=LAYOUTS)
def scene(request: pytest.FixtureRequest, llava: Halves) -> dict[str, Any]:
    """The same media for both sides: cached items, and the whole model's inputs."""
    items, media = [], []
    for seed, kind in enumerate(LAYOUTS[request.param]):
        info = make_info(kind, frames=5)
        item = encode_item(llava.tower, info, seed=seed, name=f"item-{seed}")
        items.append(item)
        media.append(make_pixels(info, item.frame_size, seed))
    return {"items": items, "inputs": native_inputs(llava.language.tokenizer, media)}


@torch.no_grad()
def prefill(llava: Halves, items: list[Any], scheme: str) -> torch.Tensor:
    """Logits (K, vocabulary) of the language half, without a KV cache: packed-sequence detection would show here."""
    inputs = llava.language.prepare([Request(items, QUESTION)], scheme)
    return llava.language.model(**inputs, use_cache=False).logits[0]


@pytest.mark.parametrize("scheme", ["original", "hf", "compact"])
def test_all_tokens_give_the_logits_of_the_whole_model(
    llava: Halves, scene: dict[str, Any], scheme: str, difference: Callable[..., float]
) -> None:
    with torch.no_grad():
        native = llava.native(**scene["inputs"]).logits[0]
    own = prefill(llava, scene["items"], scheme)
    assert own.shape == native.shape
    assert difference("llava", "all_tokens", own, native) <= 1e-6


@pytest.mark.parametrize("scheme", ["original", "compact"])
def test_all_tokens_give_the_greedy_answer_of_the_whole_model(
    llava: Halves, scene: dict[str, Any], scheme: str
) -> None:
    inputs = scene["inputs"]
    native = llava.native.generate(**inputs, max_new_tokens=STEPS, do_sample=False)
    answer = llava.language.generate([Request(scene["items"], QUESTION)], max_new_tokens=STEPS, scheme=scheme)[0]
    assert list(answer.token_ids) == native[0, inputs["input_ids"].shape[1] :].tolist()[: len(answer.token_ids)]
    assert answer.prompt_tokens == inputs["input_ids"].shape[1]
    assert answer.visual_tokens == sum(len(item.kept) for item in scene["items"])


@pytest.mark.parametrize("scheme", ["original", "hf", "compact"])
def test_a_subset_is_the_full_sequence_with_rows_deleted(
    llava: Halves, scene: dict[str, Any], scheme: str, difference: Callable[..., float]
) -> None:
    items, keep = subset(scene["items"])
    features = torch.cat([item.kept.tokens for item in scene["items"]])
    ids = scene["inputs"]["input_ids"][0]
    positions = torch.arange(len(ids))
    if scheme == "compact":
        left = torch.ones(len(ids), dtype=torch.long)
        left[ids == llava.native.config.image_token_id] = keep.long()
        positions = left.cumsum(0) - 1
    reference = logits_after_deletion(llava.native, scene["inputs"], positions, features, keep)
    assert difference("llava", "kept_subset", prefill(llava, items, scheme), reference) <= 1e-6


def test_gaps_and_renumbering_differ(llava: Halves, scene: dict[str, Any]) -> None:
    items, _ = subset(scene["items"])
    original, hf, compact = (prefill(llava, items, scheme) for scheme in ("original", "hf", "compact"))
    assert torch.equal(original, hf)
    assert float((original[-1] - compact[-1]).abs().max()) > 1e-3


def test_small_changes_and_single_tokens_show(llava: Halves, scene: dict[str, Any]) -> None:
    items = scene["items"]
    before = prefill(llava, items, "original")
    nudged = [replace(item, kept=replace(item.kept, tokens=item.kept.tokens + 1e-3)) for item in items]
    assert float((prefill(llava, nudged, "original") - before).abs().max()) > 1e-4
    short = [keep_rows(items[0], range(1, len(items[0].kept))), *items[1:]]
    assert float((prefill(llava, short, "original")[-1] - before[-1]).abs().max()) > 1e-5


@pytest.fixture
def requests(llava: Halves) -> list[Request]:
    return ragged_requests(llava.tower)


@pytest.fixture
def endless(llava: Halves, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never stop at an end token."""
    monkeypatch.setattr(llava.language.model.generation_config, "eos_token_id", None)


@pytest.mark.usefixtures("endless")
def test_each_step_with_cache_is_the_step_without(llava: Halves, requests: list[Request]) -> None:
    check_each_step(llava.language, requests)


@pytest.mark.usefixtures("endless")
def test_a_ragged_batch_is_its_rows_alone(llava: Halves, requests: list[Request]) -> None:
    check_ragged_batch(llava.language, requests)


def test_the_language_half_holds_no_tower(llava: Halves) -> None:
    inner = llava.language.model.model
    assert isinstance(inner.vision_tower, NotLoaded) and isinstance(inner.multi_modal_projector, NotLoaded)
    with pytest.raises(RuntimeError, match="vision_tower was not loaded"):
        inner.get_image_features(torch.zeros(1, 3, 42, 42))


def test_the_prompt_is_laid_out_as_vicuna_wants_it(llava: Halves) -> None:
    image = encode_item(llava.tower, make_info("image"), name="image")
    video = encode_item(llava.tower, make_info("video", frames=3), name="video")
    prompt = llava.language.prompt(Request([image, video], "what 12 ?", system="be short"))
    text = f"be short USER: {'<image>' * TOKENS}\n{'<image>' * 3 * TOKENS}\nwhat 12 ? ASSISTANT:"
    assert prompt.ids.tolist() == llava.language.tokenizer(text).input_ids
    assert prompt.positions.tolist() == list(range(len(prompt.ids)))
