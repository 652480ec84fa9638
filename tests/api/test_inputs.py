"""``to_inputs`` against the infer engine and against transformers' whole models, from pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cache_common import make_manifest, write_cache
from family_tiny import open_family
from llava_tiny import native_inputs as llava_inputs
from llava_tiny import planes, tiny_llava
from native_reference import QUESTION, keep_rows, native_inputs
from qwen3_vl_tiny import QWEN3_VL
from tiles_tiny import INTERNVL, ONEVISION
from tiny_checkpoints import Halves, encode_item, make_checkpoint, make_info, make_pixels, native_model

import tokcli
from tokcli.errors import ModelError, UsageError
from tokcli.models import Request, load_language_model, load_tower, resolve_checkpoint

TINY = {tiny.family: tiny for tiny in (QWEN3_VL, INTERNVL, ONEVISION)}
KINDS = ("video", "image")
STEPS = 6


def open_halves(family: str, folder: Path) -> Halves:
    if family in TINY:
        return open_family(folder, TINY[family])
    if family == "llava":
        return tiny_llava(folder)
    checkpoint = make_checkpoint(folder, family) if family == "qwen2_5_vl" else resolve_checkpoint(family)
    name = family if family.startswith("nano") else str(checkpoint)
    halves = (load(name, device="cpu", dtype="float32") for load in (load_tower, load_language_model))
    return Halves(family, checkpoint, native_model(checkpoint), *halves)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=["nano", "nano-clip", "qwen2_5_vl", "llava", *TINY])
def halves(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Halves:
    return open_halves(request.param, tmp_path_factory.mktemp("inputs") / "model")


@pytest.fixture(scope="module")
def cache(halves: Halves, tmp_path_factory: pytest.TempPathFactory) -> tokcli.TokenCache:
    """A clip, a still, and two fifths of the clip, as the cache gives them back."""
    items = [
        replace(encode_item(halves.tower, make_info(kind, frames=5), seed=seed, name=kind), indices=np.arange(5) * 13)
        for seed, kind in enumerate(KINDS)
    ]
    rows = np.flatnonzero(np.random.default_rng(0).random(len(items[0].kept)) < 0.4).tolist()
    items.append(replace(keep_rows(items[0], rows), id="pruned"))
    path = tmp_path_factory.mktemp("inputs") / "cache"
    write_cache(path, *items, manifest=make_manifest(model=halves.tower.identity, tokens_dtype="float32"))
    return tokcli.open_cache(path)


def native_of(halves: Halves, cache: tokcli.TokenCache, kind: str) -> dict[str, Any]:
    """What the whole model is given for the same pixels, laid out without any of the adapters."""
    item = cache[kind]
    pixels = make_pixels(make_info(kind, frames=5), item.frame_size, KINDS.index(kind))
    tokenizer = halves.language.tokenizer
    if halves.family in TINY:
        return TINY[halves.family].inputs(halves.native, tokenizer, [(kind, pixels, item)])
    if halves.family == "llava":
        return llava_inputs(tokenizer, [pixels])
    if halves.family == "nano-clip":
        return clip_of(halves, pixels, len(item.kept))
    given = native_inputs(halves.native, tokenizer, [(kind, pixels, item.seconds_per_step)])
    return with_template(tokenizer, kind, given) if halves.family == "nano" else given


def with_template(tokenizer: Any, kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The same pixels behind the prompt of the checkpoint's own template."""
    content = [{"type": kind}, {"type": "text", "text": QUESTION}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    pad = f"<|{kind}_pad|>"
    count = int((given["mm_token_type_ids"] > 0).sum())
    ids = torch.tensor([tokenizer(text.replace(pad, pad * count)).input_ids])
    types = (ids == tokenizer.convert_tokens_to_ids(pad)).int() * (1 if kind == "image" else 2)
    return {**given, "input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": types}


def clip_of(halves: Halves, pixels: np.ndarray, tokens: int) -> dict[str, Any]:
    """nano-clip's inputs: frames are stills in one run, in the prompt of its own template."""
    tokenizer = halves.language.tokenizer
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    ids = torch.tensor([tokenizer(text.replace("<image>", "<image>" * tokens)).input_ids])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": planes(pixels)}


@torch.no_grad()
def logits_of(model: Any, inputs: dict[str, Any]) -> torch.Tensor:
    if hasattr(model.model, "rope_deltas"):
        model.model.rope_deltas = None
    logits: torch.Tensor = model(**inputs).logits[0]
    return logits


@pytest.mark.parametrize("kind", KINDS)
def test_with_all_tokens_they_say_what_the_pixels_say(halves: Halves, cache: tokcli.TokenCache, kind: str) -> None:
    native = native_of(halves, cache, kind)
    inputs = cache.to_inputs(kind, QUESTION, halves.native, positions="hf")
    assert torch.equal(inputs["input_ids"], native["input_ids"])
    assert float((logits_of(halves.native, inputs) - logits_of(halves.native, native)).abs().max()) <= 1e-6
    expected = halves.native.generate(**native, max_new_tokens=STEPS, do_sample=False)
    given = cache.to_inputs(kind, QUESTION, halves.native, positions="hf")
    assert halves.native.generate(**given, max_new_tokens=STEPS, do_sample=False).tolist() == expected.tolist()


@pytest.mark.parametrize("name", [*KINDS, "pruned"])
def test_whole_model_and_half_say_what_the_engine_says(halves: Halves, cache: tokcli.TokenCache, name: str) -> None:
    answer = halves.language.generate([Request([cache[name]], QUESTION)], max_new_tokens=STEPS)[0]
    reference = logits_of(halves.language.model, halves.language.prepare([Request([cache[name]], QUESTION)]))
    for model in (halves.native, halves.language.model, halves.language):
        runs = getattr(model, "model", model) if model is halves.language else model
        assert float((logits_of(runs, cache.to_inputs(name, QUESTION, model)) - reference).abs().max()) <= 1e-6
        inputs = cache.to_inputs(name, QUESTION, model)
        rows = runs.generate(**inputs, max_new_tokens=STEPS, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert rows.tolist()[: len(answer.token_ids)] == list(answer.token_ids)


def test_a_ragged_batch_is_its_rows_alone(
    halves: Halves, cache: tokcli.TokenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halves.native.generation_config, "eos_token_id", None)
    asked: list[tuple[Any, str]] = [("video", "hi"), (["image", "pruned"], QUESTION), ("pruned", "what ?"), ([], "hi")]

    def rows(model: Any, padding: Any) -> Any:
        return tokcli.collate([cache.to_inputs(item, prompt, model) for item, prompt in asked], padding)

    batch = rows(halves.native, None)
    new = halves.native.generate(**batch, max_new_tokens=STEPS, do_sample=False)[:, batch["input_ids"].shape[1] :]
    left, right = (rows(halves.native, side) for side in ("left", "right"))
    with torch.no_grad():
        from_left, from_right = (halves.native(**inputs).logits for inputs in (left, right))
    for number, (item, prompt) in enumerate(asked):
        alone = cache.to_inputs(item, prompt, halves.native)
        length = alone["input_ids"].shape[1]
        reference = logits_of(halves.native, alone)
        assert float((from_left[number, -length:] - reference).abs().max()) <= 1e-4
        assert float((from_right[number, :length] - reference).abs().max()) <= 1e-4
        alone = cache.to_inputs(item, prompt, halves.native)
        one = halves.native.generate(**alone, max_new_tokens=STEPS, do_sample=False)[0, length:]
        assert new[number].tolist() == one.tolist()


def test_the_loss_is_that_of_the_answer(halves: Halves, cache: tokcli.TokenCache) -> None:
    """Against the log-probabilities that the engine gives for the same reply, by other code."""
    examples = [("pruned", "what ?", "a cat sits"), ("image", QUESTION, "0 1"), ("video", "hi", "")]
    rows = [cache.to_inputs(name, prompt, halves.native, answer=text) for name, prompt, text in examples]
    scores, counts = [], []
    for inputs, (name, prompt, text) in zip(rows, examples):
        labels = inputs["labels"][0]
        reply = labels[labels != -100].tolist()
        assert reply[:-1] == halves.language.tokenizer(text, add_special_tokens=False).input_ids
        assert reply[-1] == halves.language.tokenizer.eos_token_id
        assert inputs["input_ids"][0, -len(reply) :].tolist() == reply
        (expected,) = halves.language.distributions(cache[name], [prompt], [reply])
        scores.append(-float(expected[range(len(reply)), reply].sum()))
        counts.append(len(reply))
        with torch.no_grad():
            loss = float(halves.native(**inputs).loss)
        assert loss == pytest.approx(scores[-1] / counts[-1], rel=1e-4, abs=1e-5)
    for padding in (None, "left"):
        batch = tokcli.collate(rows, padding)  # type: ignore[arg-type]
        assert (batch["attention_mask"][:, 0] == 1).all() == (padding is None)
        with torch.no_grad():
            assert float(halves.native(**batch).loss) == pytest.approx(sum(scores) / sum(counts), rel=1e-4, abs=1e-5)


def test_nano_answers_as_through_the_engine(exact_cache: Path) -> None:
    """On real clips: the engine's own answer, which then has a small loss."""
    cache = tokcli.open_cache(exact_cache)
    model = native_model(resolve_checkpoint("nano"))
    language = load_language_model("nano", dtype="float32", device="cpu")
    prompt = "How many objects are there?"
    for name in cache.ids():
        answer = language.generate([Request([cache[name]], prompt)])[0]
        inputs = cache.to_inputs(name, prompt, model)
        ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert language.tokenizer.decode(ids, skip_special_tokens=True) == answer.text
        with torch.no_grad():
            assert float(model(**cache.to_inputs(name, prompt, model, answer=answer.text)).loss) < 0.7


def test_what_does_not_go_together_is_an_error(exact_cache: Path, tmp_path: Path) -> None:
    cache = tokcli.open_cache(exact_cache)
    model, name = native_model(resolve_checkpoint("nano")), cache.ids()[0]
    plain = cache.to_inputs(name, "hi", model)
    with pytest.raises(UsageError, match="some of the inputs have an answer"):
        tokcli.collate([plain, cache.to_inputs(name, "hi", model, answer="hi")])
    with pytest.raises(UsageError, match="one or more"):
        tokcli.collate([])
    with pytest.raises(UsageError, match="not copied into other dictionaries"):
        tokcli.collate([dict(plain)])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="padding must be left, right or None, got 'top'"):
        tokcli.collate([plain], "top")  # type: ignore[arg-type]
    other = load_language_model("nano", device="cpu")
    with pytest.raises(UsageError, match="different models"):
        tokcli.collate([plain, cache.to_inputs(name, "hi", other)])
    with pytest.raises(UsageError, match=r"the answer holds <\|image_pad\|>"):
        cache.to_inputs(name, "hi", model, answer="<|image_pad|>")
    with pytest.raises(ModelError, match="the cache was made by nano"):
        cache.to_inputs(name, "hi", native_model(make_checkpoint(tmp_path / "tiny", "qwen2_5_vl")))
    with pytest.raises(ModelError, match="unknown position scheme 'newest'"):
        cache.to_inputs(name, "hi", model, positions="newest")
    fresh = type(model)(model.config)
    fresh.name_or_path = ""
    with pytest.raises(ModelError, match="say with checkpoint=FOLDER"):
        cache.to_inputs(name, "hi", fresh)
    with pytest.raises(ModelError, match="is for LlavaForConditionalGeneration, the model is a Qwen2_5_VL"):
        cache.to_inputs(name, "hi", model, checkpoint="nano-clip")
    assert cache.to_inputs(name, "hi", fresh, checkpoint="nano")["input_ids"].equal(plain["input_ids"])
