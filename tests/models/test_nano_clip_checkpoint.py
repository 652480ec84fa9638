"""The bundled sibling is an ordinary LLaVA checkpoint folder, small, and goes through tokcli by its name."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_checkpoints import encode_item, make_info

import tokcli.models
from tokcli.models import Request, list_models, load_language_model, load_tower, resolve_checkpoint
from tokcli.models.nano.bank import SeenClip
from tokcli.models.nano_clip.architecture import build_config, build_tokenizer
from tokcli.models.nano_clip.language import build_prompt
from tokcli.synthetic import Question, make_scene

CHECKPOINT = Path(tokcli.models.__file__).parent / "nano_clip" / "checkpoint"


@pytest.fixture(scope="module")
def whole() -> Any:
    from transformers import AutoModelForImageTextToText

    model, report = AutoModelForImageTextToText.from_pretrained(CHECKPOINT, output_loading_info=True)
    assert not any(report.values())
    return model


def test_opens_with_the_auto_class(whole: Any) -> None:
    assert type(whole).__name__ == "LlavaForConditionalGeneration" and whole.dtype == torch.bfloat16
    vision = whole.config.vision_config
    assert (vision.model_type, vision.image_size, vision.patch_size, vision.num_hidden_layers) == (
        "clip_vision_model",
        192,
        24,
        5,
    )
    assert whole.config.vision_feature_layer == -2 and whole.config.vision_feature_select_strategy == "default"
    assert whole.model.language_model.config.model_type == "llama"


def test_is_small(whole: Any) -> None:
    bundled = [
        file for model in ("nano", "nano_clip") for file in (CHECKPOINT.parents[1] / model / "checkpoint").iterdir()
    ]
    assert sum(file.stat().st_size for file in bundled) <= 9_000_000
    assert 1_000_000 < sum(parameter.numel() for parameter in whole.parameters()) < 1_400_000


def test_is_what_its_architecture_says(whole: Any) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    built = build_tokenizer()
    assert tokenizer.get_vocab() == built.get_vocab() and tokenizer.chat_template == built.chat_template
    config = build_config(built)
    for part in ("text_config", "vision_config"):
        stored = getattr(whole.config, part).to_dict()
        for name, value in getattr(config, part).to_dict().items():
            if name not in ("dtype", "transformers_version", "_name_or_path"):
                assert stored[name] == value, name


def test_any_text_encodes_and_comes_back() -> None:
    tokenizer = build_tokenizer()
    for text in ("", " What?\n", "Grüße, 你好! 👋", "<image", "a" * 300):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_files(whole: Any) -> None:
    processor = json.loads((CHECKPOINT / "preprocessor_config.json").read_text())
    assert processor["image_processor_type"] == "CLIPImageProcessor"
    assert processor["size"] == {"height": 192, "width": 192} and processor["do_center_crop"] is False
    assert oct((CHECKPOINT / "model.safetensors").stat().st_mode & 0o444) == "0o444"


def test_by_its_name() -> None:
    assert resolve_checkpoint("nano-clip") == CHECKPOINT
    row = next(row for row in list_models() if row["name"] == "nano-clip")
    assert row["family"] == "llava" and row["kind"] == "bundled" and "cls_attention" in row["signals"]
    tower, language = load_tower("nano-clip", device="cpu"), load_language_model("nano-clip", device="cpu")
    assert tower.identity["model"] == "nano-clip" and tower.frames_per_step == 1
    language.check(tower.identity)
    info = make_info(frames=8, height=120, width=200)
    item = encode_item(tower, info)
    assert item.frame_size == (192, 192) and item.views[0].grid == (8, 8, 8) and len(item.kept) == 512
    assert tower.sizer(info, 0.25) == (96, 96)
    (answer,) = language.generate([Request([item], "What is this?")], max_new_tokens=12)
    assert answer.text == "I only know rendered shapes."


def test_training_puts_prompts_as_they_are_put_later() -> None:
    """Ids and positions of a prompt of training, and of the language half for the same question and tokens."""
    tower, language = load_tower("nano-clip", device="cpu"), load_language_model("nano-clip", device="cpu")
    item = encode_item(tower, make_info(frames=3))
    clip = SeenClip(make_scene("static", 1), item.kept.tokens.half(), (3, 8, 8), 1.0, np.full(192, np.inf, np.float32))
    question = "Which way does the red circle move?"
    asked = [Question("motion", question, "left")]
    for scheme in ("original", "compact"):
        ours = build_prompt(clip, np.arange(192), asked, language.tokenizer, scheme)
        theirs = language.prompt(Request([item], question), scheme)
        ids = torch.from_numpy(ours.ids)
        ids[ours.visual] = language.model.config.image_token_id
        # Training goes on with the answer, whose last token is not fed.
        assert ids[: len(theirs.ids)].tolist() == theirs.ids.tolist()
        assert ours.positions[: len(theirs.ids)].tolist() == theirs.positions.tolist()


def test_answers_about_scenes_that_it_has_not_seen(whole: Any) -> None:
    from collections import Counter

    from tokcli.models.nano.evaluate import count
    from tokcli.models.nano_clip.evaluate import unseen

    model, asked, right = deepcopy(whole).float(), Counter[str](), Counter[str]()
    for tally in count(model, build_tokenizer(), unseen(model, 8, 56), build=build_prompt).values():
        asked, right = asked + tally.asked, right + tally.right
    shares = {kind: right[kind] / asked[kind] for kind in asked}
    for kind, least in (
        ("color", 0.9),
        ("shape", 0.85),
        ("count", 0.65),
        ("order", 0.65),
        ("read", 0.55),
        ("other", 1),
    ):
        assert shares[kind] >= least, f"{kind}: {right[kind]} of {asked[kind]}"
