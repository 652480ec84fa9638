"""The bundled checkpoint is an ordinary checkpoint folder, small, and its tokenizer takes any text."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nano_native import CHECKPOINT, native

from tokcli.models.settings import read_preprocessing
from tokcli.synthetic import CHARACTERS, COLORS, MOTIONS, SHAPES, make_scene, questions, scene_kinds

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
SPECIAL.append("<|video_pad|>")


def test_opens_with_the_auto_class_and_no_weight_is_missing() -> None:
    from transformers import AutoModelForImageTextToText

    model, report = AutoModelForImageTextToText.from_pretrained(CHECKPOINT, output_loading_info=True)
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert model.dtype == torch.bfloat16
    assert not any(report.values())


def test_is_small() -> None:
    assert sum(file.stat().st_size for file in CHECKPOINT.iterdir()) <= 8_000_000
    parameters = sum(parameter.numel() for parameter in native()[0].parameters())
    assert 2_500_000 < parameters < 3_500_000


def test_holds_the_files_of_a_checkpoint() -> None:
    names = {file.name for file in CHECKPOINT.iterdir()}
    assert names == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "video_preprocessor_config.json",
    }
    for name in names - {"chat_template.jinja", "model.safetensors"}:
        assert json.loads((CHECKPOINT / name).read_text(encoding="utf-8"))


def test_pixel_budget_is_the_same_for_stills_and_video() -> None:
    preprocessing = read_preprocessing(CHECKPOINT)
    for settings in (preprocessing.image, preprocessing.video):
        assert (settings.bounds.min_pixels, settings.bounds.max_pixels) == (112 * 112, 224 * 224)
        assert (settings.patch_size, settings.merge_size, settings.temporal_patch_size) == (14, 2, 2)


def test_every_word_of_the_questions_is_one_token() -> None:
    _, tokenizer = native()
    words = {
        word
        for kind in scene_kinds()
        for seed in range(40)
        for question in questions(make_scene(kind, seed), seed)
        for word in question.question.translate(str.maketrans("", "", "?.,")).split()
    }
    assert len(words) > 30
    for word in words | {*COLORS, *SHAPES, *MOTIONS, *CHARACTERS}:
        assert len(tokenizer.encode(word)) == 1, word
    for word in words:
        assert len(tokenizer.encode(f" {word}")) == 1, word


def test_special_tokens_are_one_token_each_and_where_the_configuration_says() -> None:
    model, tokenizer = native()
    ids = [tokenizer.encode(text) for text in SPECIAL]
    assert ids == [[index] for index in range(len(SPECIAL))]
    config = model.config
    named = [config.vision_start_token_id, config.vision_end_token_id, config.image_token_id, config.video_token_id]
    assert [[index] for index in named] == ids[3:]
    assert model.generation_config.eos_token_id == [ids[2][0], ids[0][0]]
    assert max(tokenizer.get_vocab().values()) < config.text_config.vocab_size


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_text_encodes_and_comes_back(text: str) -> None:
    _, tokenizer = native()
    if not any(special in text for special in SPECIAL):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", ["image", "video"])
def test_chat_template_is_qwens_without_a_system_prompt_of_its_own(kind: str) -> None:
    _, tokenizer = native()
    user = {"role": "user", "content": [{"type": kind, kind: "file"}, {"type": "text", "text": " What? "}]}
    text = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    middle = f"<|vision_start|><|{kind}_pad|><|vision_end|> What? <|im_end|>\n<|im_start|>assistant\n"
    assert text == f"<|im_start|>user\n{middle}"
    system = {"role": "system", "content": "Be brief."}
    text = tokenizer.apply_chat_template([system, user], tokenize=False, add_generation_prompt=True)
    assert text == f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{middle}"
