"""Half loading: from every layout of names, from shards, and never with a weight made up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_checkpoints import (
    Halves,
    encode_item,
    make_checkpoint,
    make_info,
    make_pixels,
    native_model,
    relayout,
)

from tokcli.errors import ModelError
from tokcli.models import Request, load_language_model, load_tower


def hub_style(name: str) -> str:
    """visual.*, model.*, lm_head.*: as the first checkpoints were published."""
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def style_of_4_52(name: str) -> str:
    """model.visual.*, model.language_model.*, lm_head.*."""
    plain = hub_style(name)
    if plain.startswith("visual."):
        return f"model.{plain}"
    return plain.replace("model.", "model.language_model.", 1)


def check_equal(halves: Halves, folder: Path) -> None:
    """Both halves from ``folder`` do what those of ``halves`` do."""
    info = make_info()
    size = halves.tower.sizer(info)
    pixels = make_pixels(info, size)
    tower = load_tower(str(folder), device="cpu")
    language = load_language_model(str(folder), device="cpu")
    assert torch.equal(tower.start(info, size).push(pixels).tokens, halves.tower.start(info, size).push(pixels).tokens)
    request = Request([encode_item(halves.tower, info)], "what happens ?")
    with torch.no_grad():
        logits, expected = (half.model(**half.prepare([request])).logits for half in (language, halves.language))
    assert torch.equal(logits, expected)
    assert tower.identity["fingerprint"] == halves.tower.identity["fingerprint"]
    language.check(halves.tower.identity)


def flat_config(folder: Path) -> None:
    """Rewrite config.json as published: text settings at the top, rope under its old name, `torch_dtype`."""
    config = json.loads((folder / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    for name in ("dtype", "layer_types", "model_type"):
        text.pop(name, None)
    config["vision_config"] = {
        name: value for name, value in config["vision_config"].items() if name not in {"dtype", "model_type"}
    }
    config.update({name: value for name, value in text.items() if name not in config}, torch_dtype=config.pop("dtype"))
    config["rope_theta"] = rope["rope_theta"]
    config["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    (folder / "config.json").write_text(json.dumps(config))


def test_as_published(halves: Halves, tmp_path: Path) -> None:
    folder = relayout(halves.folder, tmp_path / "published", hub_style)
    flat_config(folder)
    check_equal(halves, folder)


@pytest.mark.parametrize("style", [hub_style, style_of_4_52])
def test_layouts_of_names(halves: Halves, style: Callable[[str], str], tmp_path: Path) -> None:
    folder = relayout(halves.folder, tmp_path / "renamed", style)
    check_equal(halves, folder)


def test_shards(halves: Halves, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "sharded", halves.family, shard="100KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    check_equal(halves, folder)


def test_tied_embeddings(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "tied", "qwen2_5_vl", tied=True)
    language = load_language_model(str(folder), device="cpu")
    inputs = language.prepare([Request([], "what happens ?")])
    inputs.pop("mm_encoder_outputs")
    with torch.no_grad():
        native = native_model(folder)(**inputs).logits
        assert torch.equal(language.model(**inputs).logits, native)
    load_tower(str(folder), device="cpu")


def first_name(folder: Path, part: str) -> str:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        return next(name for name in sorted(file.keys()) if part in name)


@pytest.mark.parametrize("half", ["vision", "language"])
def test_a_missing_weight_matters_to_its_half_only(qwen25: Path, half: str, tmp_path: Path) -> None:
    part = {"vision": "visual.blocks.1", "language": "layers.1."}[half]
    dropped = first_name(qwen25, part)
    folder = relayout(qwen25, tmp_path / "incomplete", lambda name: None if name == dropped else name)
    broken, whole = (load_tower, load_language_model) if half == "vision" else (load_language_model, load_tower)
    missing = style_of_4_52(dropped).replace(".", r"\.")
    with pytest.raises(ModelError, match=rf"the {half} half lacks {missing}; download the checkpoint again"):
        broken(str(folder), device="cpu")
    assert whole(str(folder), device="cpu")


def test_names_that_nobody_knows_are_missing_weights(qwen25: Path, tmp_path: Path) -> None:
    folder = relayout(qwen25, tmp_path / "foreign", lambda name: f"other.{name}")
    with pytest.raises(ModelError, match=r"the language half lacks .* and \d+ more; download"):
        load_language_model(str(folder), device="cpu")
    with pytest.raises(ModelError, match="holds no vision tower"):
        load_tower(str(folder), device="cpu")


def test_a_weight_of_another_shape(qwen25: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shape"
    shutil.copytree(qwen25, folder)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["out_hidden_size"] = 96
    (folder / "config.json").write_text(json.dumps(config))
    message = (
        r"the vision half has another shape than config.json says for model\.visual\.merger\.mlp\.2\.bias and 1 more"
    )
    with pytest.raises(ModelError, match=message):
        load_tower(str(folder), device="cpu")


def test_patch_sizes_must_be_those_of_the_tower(qwen25: Path, tmp_path: Path) -> None:
    folder = tmp_path / "patches"
    shutil.copytree(qwen25, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"patch_size": 16}))
    with pytest.raises(ModelError, match="the preprocessor's patch_size is 16, the tower's patch_size is 14; correct"):
        load_tower(str(folder), device="cpu")


def test_no_tokenizer(qwen25: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mute"
    shutil.copytree(qwen25, folder, ignore=shutil.ignore_patterns("tokenizer*", "special_tokens*"))
    assert load_tower(str(folder), device="cpu")
    with pytest.raises(
        ModelError, match=r"holds no tokenizer: tokenizer\.json or vocab\.json or tokenizer\.model is needed"
    ):
        load_language_model(str(folder), device="cpu")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="the tokenizer can't be loaded") as caught:
        load_language_model(str(folder), device="cpu")
    assert "\n" not in str(caught.value)


def test_a_tokenizer_of_another_model(qwen25: Path, tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    shutil.copytree(qwen25, folder)
    config = json.loads((folder / "config.json").read_text())
    config["video_token_id"] = 5000
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"the tokenizer has no token 5000, which config\.json names for video tokens"):
        load_language_model(str(folder), device="cpu")


def test_precision_and_device(qwen25: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokcli.models import placement

    assert load_tower(str(qwen25), device="cpu").identity["dtype"] == "float32"
    assert load_tower(str(qwen25), device="cpu", dtype="bfloat16").identity["dtype"] == "bfloat16"
    folder = tmp_path / "half"
    shutil.copytree(qwen25, folder)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "bfloat16"
    (folder / "config.json").write_text(json.dumps(config))
    for capable, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(placement, "_cpu_has_bfloat16", lambda capable=capable: capable)
        tower = load_tower(str(folder), device="cpu")
        info = make_info(frames=2)
        size = tower.sizer(info)
        assert tower.start(info, size).push(make_pixels(info, size)).tokens.dtype == expected
    for options, message in (
        ({"dtype": "float16"}, "float16 is slow and inexact on a CPU; use bfloat16, float32 or auto"),
        ({"dtype": "int8"}, "unknown dtype 'int8'; allowed: auto, float32, bfloat16, float16"),
        ({"device": "tpu"}, r"device 'tpu' can't be used here \(.+\); usable on this machine: auto, cpu"),
    ):
        with pytest.raises(ModelError, match=message):
            load_tower(str(qwen25), **{"device": "cpu", **options})


def test_transformers_stays_silent_and_keeps_its_settings(qwen25: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_tower(str(qwen25), device="cpu")
    load_language_model(str(qwen25), device="cpu").generate([Request([], "hi")], max_new_tokens=2)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
