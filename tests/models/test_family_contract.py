"""Every further family: what the two halves say is what the whole model says, from pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family_tiny import Tiny, make_family, open_family
from gemma_tiny import GEMMA3
from glm_tiny import GLM4V, GLM45V, GLM46V
from idefics_tiny import IDEFICS3, SMOLVLM
from native_reference import QUESTION, keep_rows
from next_tiny import NEXT, NEXT_VIDEO
from qwen3_vl_tiny import QWEN3_5, QWEN3_5_MOE, QWEN3_VL, QWEN3_VL_MOE
from tiles_tiny import INTERNVL, ONEVISION
from tiny_checkpoints import Halves, encode_item, make_info, make_pixels, relayout

from tokcli.models import Request, load_language_model, load_tower
from tokcli.types import EncodedItem, MediaKind

FAMILIES = {
    tiny.family: tiny
    for tiny in (
        *(QWEN3_VL, QWEN3_VL_MOE, QWEN3_5, QWEN3_5_MOE, GLM4V, GLM45V, GLM46V),
        *(ONEVISION, NEXT, NEXT_VIDEO, INTERNVL, IDEFICS3, SMOLVLM, GEMMA3),
    )
}
LAYOUTS = {
    "video": ["video"],
    "image": ["image"],
    "images": ["image", "image"],
    "image, video, image": ["image", "video", "image"],
}
SHAPES = [(100, 150), (150, 90), (61, 60)]
STEPS = 6
KINDS: tuple[MediaKind, ...] = ("image", "video")


@pytest.fixture(scope="module", params=FAMILIES)
def tiny(request: pytest.FixtureRequest) -> Tiny:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def opened(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Halves:
    return open_family(tmp_path_factory.mktemp("families") / tiny.family, tiny)


@pytest.fixture(params=LAYOUTS)
def scene(request: pytest.FixtureRequest, tiny: Tiny, opened: Halves) -> dict[str, Any]:
    """The same media for both sides: cached items, and the whole model's inputs."""
    items, media = [], []
    if tiny.family == "llava_next" and "video" in LAYOUTS[request.param]:
        pytest.skip("transformers gives this family no video; what it gets here is a convention of this project")
    if tiny.family.startswith("glm") and len(set(LAYOUTS[request.param])) > 1:
        pytest.skip("transformers can't tell stills from frames where both are in one prompt")
    for seed, kind in enumerate(LAYOUTS[request.param]):
        height, width = SHAPES[seed]
        info = make_info(kind, frames=5, height=height, width=width)
        item = replace(encode_item(opened.tower, info, seed=seed, name=f"item-{seed}"), indices=np.arange(5) * 13 + 2)
        items.append(item)
        media.append((kind, make_pixels(info, item.frame_size, seed), item))
    return {"items": items, "inputs": tiny.inputs(opened.native, opened.language.tokenizer, media)}


@torch.no_grad()
def prefill(opened: Halves, items: list[EncodedItem], scheme: str = "hf") -> torch.Tensor:
    """Logits (K, vocabulary) of the language half, without a KV cache: packed-sequence detection would show here."""
    inputs = opened.language.prepare([Request(items, QUESTION)], scheme)
    logits: torch.Tensor = opened.language.model(**inputs, use_cache=False).logits[0]
    return logits


@torch.no_grad()
def native_prefill(opened: Halves, inputs: dict[str, Any], **options: Any) -> torch.Tensor:
    if hasattr(opened.native.model, "rope_deltas"):
        opened.native.model.rope_deltas = None
    logits: torch.Tensor = opened.native(**inputs, **options).logits[0]
    return logits


def subset(items: list[EncodedItem], share: float = 0.4) -> tuple[list[EncodedItem], torch.Tensor]:
    """About that share of every item's tokens, and the mask over all of them."""
    masks = [np.random.default_rng(seed).random(len(item.kept)) < share for seed, item in enumerate(items)]
    kept = [keep_rows(item, np.flatnonzero(mask).tolist()) for item, mask in zip(items, masks)]
    return kept, torch.from_numpy(np.concatenate(masks))


def left_of(
    tiny: Tiny, opened: Halves, items: list[EncodedItem], ids: torch.Tensor, keep: torch.Tensor
) -> torch.Tensor:
    """bool (S,): what is left of the full prompt when the tokens outside of ``keep``, in the items' order, are out."""
    masks = keep.split([len(item.kept) for item in items])
    tokens = torch.tensor([opened.language.family.visual_token(opened.native.config, kind) for kind in KINDS])
    left = torch.ones(len(ids), dtype=torch.bool)
    left[torch.isin(ids, tokens)] = torch.from_numpy(
        np.concatenate([tiny.in_prompt(mask.numpy(), item) for mask, item in zip(masks, items)])
    )
    return left


@pytest.mark.parametrize("scheme", ["hf", "original"])
def test_all_tokens_give_the_logits_of_the_whole_model(
    opened: Halves, scene: dict[str, Any], scheme: str, difference: Callable[..., float]
) -> None:
    own, native = prefill(opened, scene["items"], scheme), native_prefill(opened, scene["inputs"])
    assert own.shape == native.shape
    # The whole model takes stills of a prompt in one call, the tower one by one: on processors with wider vectors the
    # larger products add up in another order.
    tolerance = 1e-6 if len(scene["items"]) == 1 else 1e-5
    assert difference(opened.family, "all_tokens", own, native) <= tolerance


def test_all_tokens_give_the_greedy_answer_of_the_whole_model(opened: Halves, scene: dict[str, Any]) -> None:
    inputs = scene["inputs"]
    native = opened.native.generate(**inputs, max_new_tokens=STEPS, do_sample=False)
    answer = opened.language.generate([Request(scene["items"], QUESTION)], max_new_tokens=STEPS)[0]
    assert list(answer.token_ids) == native[0, inputs["input_ids"].shape[1] :].tolist()[: len(answer.token_ids)]
    assert answer.prompt_tokens == inputs["input_ids"].shape[1]
    assert answer.visual_tokens == sum(len(item.kept) for item in scene["items"])


def test_kept_tokens_keep_their_positions(tiny: Tiny, opened: Halves, scene: dict[str, Any]) -> None:
    """Position by position: those of the full prompt, without the dropped ones."""
    items, keep = subset(scene["items"])
    full, kept = (opened.language.prompt(Request(some, QUESTION)) for some in (scene["items"], items))
    left = left_of(tiny, opened, scene["items"], full.ids, keep)
    assert torch.equal(kept.ids, full.ids[left])
    assert torch.equal(kept.positions, full.positions[..., left])


def test_a_dropped_token_is_as_if_nobody_had_seen_it(
    tiny: Tiny, opened: Halves, scene: dict[str, Any], difference: Callable[..., float]
) -> None:
    """Against the whole model under a mask that hides the dropped tokens from all others."""
    if tiny.recurrent:
        pytest.skip("a state that runs through the sequence can't be masked")
    items, keep = subset(scene["items"])
    inputs = scene["inputs"]
    ids = inputs["input_ids"][0]
    left = left_of(tiny, opened, scene["items"], ids, keep)
    positions = opened.language.prompt(Request(scene["items"], QUESTION)).positions[..., None, :]
    mask = (tiny.hidden or causal)(opened.native, ids, left)
    given = {**inputs, "attention_mask": mask, "position_ids": positions}
    reference = native_prefill(opened, given, use_cache=False)[left]
    assert difference(opened.family, "kept_subset", prefill(opened, items), reference) <= 1e-5


def causal(_native: object, ids: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    seen = torch.ones(len(ids), len(ids), dtype=torch.bool).tril() & left
    seen |= torch.eye(len(ids), dtype=torch.bool)  # a row that sees nothing is not a number
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)[None, None]


def test_small_changes_single_tokens_and_positions_show(opened: Halves, scene: dict[str, Any]) -> None:
    items = scene["items"]
    before = prefill(opened, items)
    nudged = [replace(item, kept=replace(item.kept, tokens=item.kept.tokens + 1e-3)) for item in items]
    assert float((prefill(opened, nudged) - before).abs().max()) > 1e-5
    short = [keep_rows(items[0], range(1, len(items[0].kept))), *items[1:]]
    assert float((prefill(opened, short)[-1] - before[-1]).abs().max()) > 1e-6
    some, _ = subset(items)
    assert float((prefill(opened, some)[-1] - prefill(opened, some, "compact")[-1]).abs().max()) > 1e-4


def test_a_ragged_batch_is_its_rows_alone(tiny: Tiny, opened: Halves, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened.language.model.generation_config, "eos_token_id", None)
    video = encode_item(opened.tower, make_info("video", frames=4), seed=1, name="video")
    image = encode_item(opened.tower, make_info("image"), seed=2, name="image")
    requests = [
        Request(subset([video], 0.3)[0], "what happens ?"),
        Request([image], "a cat sits on the mat and looks at the other cat", system="be short"),
        Request([image, subset([video], 0.6)[0][0]], "what happens in this video ?"),
        Request([keep_rows(video, [])], "nothing was kept"),
        Request([], "no item at all"),
    ]
    together = opened.language.generate(requests, max_new_tokens=STEPS)
    alone = [opened.language.generate([request], max_new_tokens=STEPS)[0] for request in requests]
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    if tiny.recurrent:
        return
    asked = opened.language.ask(image, [request.prompt for request in requests], max_new_tokens=STEPS)
    plain = opened.language.generate([Request([image], request.prompt) for request in requests], max_new_tokens=STEPS)
    assert [answer.token_ids for answer in asked] == [answer.token_ids for answer in plain]


def test_each_step_with_cache_is_the_step_without(tiny: Tiny, opened: Halves, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of families whose language model takes one position a token."""
    video = encode_item(opened.tower, make_info("video", frames=4), seed=1)
    request = Request(subset([video], 0.5)[0], QUESTION)
    inputs = opened.language.prepare([request])
    if inputs["position_ids"].dim() != 2 or tiny.recurrent:
        pytest.skip("its positions have three dimensions, or it has a state instead of a cache")
    monkeypatch.setattr(opened.language.model.generation_config, "eos_token_id", None)
    config = opened.native.config
    # A random model may say what stands for visual tokens, and then one forward finds too few of them.
    silent = [opened.language.family.visual_token(config, kind) for kind in KINDS]
    options = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True, "suppress_tokens": silent}
    output = opened.language.model.generate(**inputs, max_new_tokens=STEPS, **options)
    new = output.sequences[:, -STEPS:]
    for step in range(STEPS):
        given = opened.language.prepare([request])
        after = given["position_ids"][:, -1:] + torch.arange(1, step + 1)
        longer = {"input_ids": new[:, :step], "attention_mask": torch.ones_like(after), "position_ids": after}
        if "token_type_ids" in given:
            longer["token_type_ids"] = torch.zeros_like(after)
        given |= {name: torch.cat([given[name], values], dim=1) for name, values in longer.items()}
        with torch.no_grad():
            reference = opened.language.model(**given, use_cache=False).logits[0, -1]
        assert float((output.logits[step][0] - reference).abs().max()) <= 1e-5


@pytest.mark.parametrize("kind", ["video", "image"])
def test_runs_do_not_change_anything(opened: Halves, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    info = make_info(kind, frames=5)
    whole = encode_item(opened.tower, info).kept
    monkeypatch.setattr(opened.tower, "max_patches", 1)
    size = opened.tower.sizer(info)
    pixels = make_pixels(info, size)
    encoding = opened.tower.start(info, size)
    run = 2 if kind == "video" else 1
    parts = [encoding.push(pixels[first : first + run]) for first in range(0, len(pixels), run)]
    closing = encoding.closing()
    parts += [] if closing is None else [closing]
    # Equal bit by bit where a row of a product does not depend on how many there are, as with AVX2; with wider vectors
    # the last bits of sums of 64 numbers about 1 may differ.
    torch.testing.assert_close(torch.cat([part.tokens for part in parts]), whole.tokens, rtol=0, atol=1e-6)
    assert torch.equal(torch.cat([part.coords for part in parts]), whole.coords)


def hub_style(name: str) -> str:
    """As the first checkpoints with towers of CLIP and SigLIP were published."""
    return name.replace("vision_tower.", "vision_tower.vision_model.")


def style_of_4_52(name: str) -> str:
    """model.vision_tower.*, model.language_model.*, lm_head.*."""
    if name.startswith("language_model.lm_head."):
        return name.removeprefix("language_model.")
    return "model." + name.replace("language_model.model.", "language_model.")


def as_saved(name: str) -> str:
    return name


@pytest.mark.parametrize("style", [as_saved, hub_style, style_of_4_52])
def test_layouts_of_names(tiny: Tiny, opened: Halves, style: Callable[[str], str], tmp_path: Path) -> None:
    if style not in tiny_styles(tiny):
        pytest.skip("no checkpoint of this family was ever published in this layout")
    check_same(opened, relayout(opened.folder, tmp_path / "renamed", style))


def test_shards(tiny: Tiny, opened: Halves, tmp_path: Path) -> None:
    folder = make_family(tmp_path / "sharded", tiny, shard="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    check_same(opened, folder)


def check_same(opened: Halves, folder: Path) -> None:
    """Both halves from ``folder`` do what those of ``opened`` do."""
    tower, language = load_tower(str(folder), device="cpu"), load_language_model(str(folder), device="cpu")
    info = make_info("image")
    items = [encode_item(half, info) for half in (opened.tower, tower)]
    assert torch.equal(items[0].kept.tokens, items[1].kept.tokens)
    with torch.no_grad():
        logits = [
            half.model(**half.prepare([Request([items[0]], QUESTION)])).logits for half in (opened.language, language)
        ]
    assert torch.equal(*logits)
    assert tower.identity["fingerprint"] == opened.tower.identity["fingerprint"]
    language.check(opened.tower.identity)


def tiny_styles(tiny: Tiny) -> list[Callable[[str], str]]:
    """The layouts that checkpoints of the family come in; transformers 5 saves in the published one but for towers."""
    if tiny.family.startswith(("qwen", "glm")) or tiny.family in ("smolvlm", "idefics3"):
        return [as_saved]
    return [as_saved, style_of_4_52] if tiny.family == "internvl" else [as_saved, hub_style, style_of_4_52]
