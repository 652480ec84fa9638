"""LLaVA's files: layouts of names, fingerprints, and preprocessing equal to CLIP's image processor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llava_tiny import CROPPED, EXACT, SIDE, make_llava, planes
from native_reference import QUESTION
from safetensors.torch import load_file, save_file
from tiny_checkpoints import Halves, encode_item, make_info, make_pixels, relayout

from tokcli import models
from tokcli.errors import MediaError, ModelError
from tokcli.models import Request, load_language_model, load_tower
from tokcli.models.preprocess import middle, resize_frames, to_planes
from tokcli.models.sizing import FixedSize, Sizer


def as_on_the_hub(name: str) -> str:
    """As published; transformers 5 saves the same names, but without the tower's inner model."""
    return name.replace("vision_tower.", "vision_tower.vision_model.")


def as_modules(name: str) -> str:
    """As the modules of transformers 5 are called."""
    if name.startswith("language_model.lm_head."):
        return name.removeprefix("language_model.")
    return "model." + name.replace("language_model.model.", "language_model.")


def as_in_4_52(name: str) -> str:
    return as_modules(as_on_the_hub(name))


@pytest.mark.parametrize("rename", [as_on_the_hub, as_modules, as_in_4_52])
def test_other_layouts_of_names(rename: Callable[[str], str], llava: Halves, tmp_path: Path) -> None:
    folder = relayout(llava.folder, tmp_path / "other", rename)
    assert set(load_file(folder / "model.safetensors")) != set(load_file(llava.folder / "model.safetensors"))
    tower, language = load_tower(str(folder), device="cpu"), load_language_model(str(folder), device="cpu")
    info = make_info(frames=3)
    own, other = encode_item(llava.tower, info), encode_item(tower, info)
    assert torch.equal(own.kept.tokens, other.kept.tokens)
    assert tower.identity["fingerprint"] == llava.tower.identity["fingerprint"]
    ask = [Request([own], QUESTION)]
    assert (
        language.generate(ask, max_new_tokens=8)[0].token_ids
        == llava.language.generate(ask, max_new_tokens=8)[0].token_ids
    )
    language.check(llava.tower.identity)


@pytest.mark.parametrize(
    ("part", "half"),
    [
        ("multi_modal_projector.linear_2.weight", "vision"),
        ("layers.1.mlp.fc1.bias", "vision"),
        ("norm.weight", "language"),
    ],
)
def test_a_missing_weight_is_an_error(part: str, half: str, llava: Halves, tmp_path: Path) -> None:
    folder = relayout(llava.folder, tmp_path / "broken", lambda name: None if part in name else name)
    load = load_tower if half == "vision" else load_language_model
    with pytest.raises(ModelError, match=rf"the {half} half lacks .*; download the checkpoint again"):
        load(str(folder), device="cpu")


def changed(folder: Path, copy: Path, file: str, change: Callable[[Any], None]) -> Path:
    shutil.copytree(folder, copy)
    if file.endswith(".json"):
        content = json.loads((copy / file).read_text())
        change(content)
        (copy / file).write_text(json.dumps(content))
    else:
        tensors = load_file(copy / file)
        change(tensors)
        save_file(tensors, copy / file, metadata={"format": "pt"})
    return copy


def nudge(part: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = next(name for name in sorted(tensors) if part in name)
        tensors[name].view(-1)[-1] += 1

    return change


@pytest.mark.parametrize(
    ("file", "change", "same"),
    [
        ("model.safetensors", nudge("multi_modal_projector"), False),
        ("model.safetensors", nudge("vision_tower"), False),
        ("config.json", lambda content: content.update(vision_feature_layer=-3), False),
        ("config.json", lambda content: content["vision_config"].update(hidden_act="gelu"), False),
        ("preprocessor_config.json", lambda content: content.update(resample=2), False),
        ("model.safetensors", nudge("language_model"), True),
        ("config.json", lambda content: content.update(image_seq_length=1), True),
    ],
)
def test_fingerprints(file: str, change: Callable[[Any], None], same: bool, llava: Halves, tmp_path: Path) -> None:
    other = load_tower(str(changed(llava.folder, tmp_path / "copy", file, change)), device="cpu")
    assert (other.identity["fingerprint"] == llava.tower.identity["fingerprint"]) == same


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (
            {"size": {"height": 28, "width": 28}, "do_center_crop": False},
            "makes frames of 28x28 pixels, the tower takes 42x42",
        ),
        ({"size": {"shortest_edge": SIDE}, "do_center_crop": False}, "resizes the shortest edge and cuts nothing off"),
        ({"size": {"height": 60, "width": 60}, "crop_size": SIDE}, "cuts 42x42 pixels out of frames of 60x60"),
        ({"size": {"shortest_edge": 30}, "crop_size": SIDE}, "cuts 42x42 pixels out of frames with a side of 30"),
        ({**EXACT, "do_pad": True}, "the image processor sets do_pad=true"),
        ({**EXACT, "do_normalize": False}, "the image processor sets do_normalize=false"),
        ({"size": {}, "do_center_crop": True, "crop_size": {"height": SIDE}}, "configuration is malformed"),
    ],
)
def test_preprocessing_that_cannot_be_done(
    processor: dict[str, Any], message: str, llava: Halves, tmp_path: Path
) -> None:
    def change(content: dict[str, Any]) -> None:
        content.clear()
        content.update(processor)

    folder = changed(llava.folder, tmp_path / "copy", "preprocessor_config.json", change)
    with pytest.raises(ModelError, match=message):
        load_tower(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy is 'full', which keeps"),
        ({"vision_feature_layer": [-2, -3]}, r"vision_feature_layer must be one layer, got \[-2, -3\]"),
        (
            {"vision_config": {"model_type": "siglip_vision_model"}},
            "a tower of the type 'siglip_vision_model' has no adapt",
        ),
    ],
)
def test_towers_that_cannot_be_driven(change: dict[str, Any], message: str, llava: Halves, tmp_path: Path) -> None:
    folder = changed(llava.folder, tmp_path / "copy", "config.json", lambda content: content.update(change))
    with pytest.raises(ModelError, match=message):
        load_tower(str(folder), device="cpu")


def clip_processor(config: dict[str, Any]) -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(**config)


@pytest.mark.parametrize(("processor", "shape"), [(EXACT, (SIDE, SIDE)), (CROPPED, (SIDE, 63)), (CROPPED, (70, SIDE))])
def test_pixels_are_those_of_clips_processor(processor: dict[str, Any], shape: tuple[int, int], tmp_path: Path) -> None:
    """Of the size already: cropping and normalising alone, by arithmetic that must agree to the last bits."""
    folder = make_llava(tmp_path, processor)
    tower = load_tower(str(folder), device="cpu")
    info = make_info("image", height=shape[0], width=shape[1])
    assert tower.sizer(info) == shape
    pixels = make_pixels(info, shape)
    native = clip_processor(json.loads((folder / "preprocessor_config.json").read_text()))
    expected = native(images=[pixels[0]], return_tensors="pt").pixel_values
    own = to_planes(torch.from_numpy(np.ascontiguousarray(middle(pixels, (SIDE, SIDE)))), tower.preprocessing.image)
    assert own.shape == expected.shape == (1, 3, SIDE, SIDE)
    assert float((own - expected).abs().max()) <= 1e-6
    assert torch.equal(own, planes(np.ascontiguousarray(middle(pixels, (SIDE, SIDE)))))


@pytest.mark.parametrize("processor", [EXACT, CROPPED])
@pytest.mark.parametrize("shape", [(100, 150), (150, 90), (61, 60)])
def test_resized_pixels_are_near_those_of_clips_processor(
    processor: dict[str, Any], shape: tuple[int, int], tmp_path: Path
) -> None:
    """Pillow's kernel rounds otherwise than torch's, by a grey level or two; the places must be the same."""
    folder = make_llava(tmp_path, processor)
    tower = load_tower(str(folder), device="cpu")
    info = make_info("image", height=shape[0], width=shape[1])
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    picture = np.stack([128 + 90 * np.sin(x / 9), 128 + 80 * np.cos(y / 11), (x + y) % 200], -1).astype(np.uint8)
    frames = middle(resize_frames(picture[None], tower.sizer(info)), (SIDE, SIDE))
    own = to_planes(torch.from_numpy(np.ascontiguousarray(frames)), tower.preprocessing.image)
    native = clip_processor(json.loads((folder / "preprocessor_config.json").read_text()))
    expected = native(images=[picture], return_tensors="pt").pixel_values
    one_level = 1 / 255 / min(tower.preprocessing.image.std)
    assert own.shape == expected.shape
    assert float((own - expected).abs().max()) <= 2.5 * one_level


def test_sizes_by_hand() -> None:
    llava15 = FixedSize(336, 336, 336)
    sizer = Sizer(14, 1, 1, llava15, llava15)
    full_hd = make_info(frames=5, height=1080, width=1920)
    assert sizer(full_hd) == (336, 597)  # int(336 * 1920 / 1080)
    assert sizer(make_info("image", height=640, width=480)) == (448, 336)
    assert sizer.region(full_hd, (336, 597)) == (336, 336) and sizer.grid(full_hd, (336, 597)) == (5, 24, 24)
    # A quarter of the tokens: 12 x 12 of them, so that frames are half as large in each direction before the cut.
    assert sizer(full_hd, 0.25) == (168, 298)
    assert sizer.grid(full_hd, (168, 298)) == (5, 12, 12)
    exact = Sizer(24, 1, 1, FixedSize(192, 192), FixedSize(192, 192))
    assert exact(full_hd) == (192, 192) and exact(full_hd, 0.25) == (96, 96)
    with pytest.raises(MediaError, match="frames of 2001x10 pixels are too narrow"):
        sizer(make_info(height=10, width=2001))


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("shape", [(100, 150), (480, 640), (1080, 1920), (2000, 333), (336, 337)])
def test_every_share_leaves_a_grid_inside_of_the_frame(share: float, shape: tuple[int, int]) -> None:
    for bounds in (FixedSize(336, 336, 336), FixedSize(224, 224, 256), FixedSize(336, 336)):
        sizer = Sizer(14, 1, 1, bounds, bounds)
        info = make_info(height=shape[0], width=shape[1])
        size = sizer(info, share)
        region = sizer.region(info, size)
        assert region[0] % 14 == region[1] % 14 == 0 and 14 <= region[0] <= size[0] and 14 <= region[1] <= size[1]
        tokens = (region[0] // 14) * (region[1] // 14)
        assert tokens <= max(1, share * (bounds.height // 14) ** 2)


def test_the_template_of_the_checkpoint_may_know_images_only(llava: Halves, tmp_path: Path) -> None:
    """LLaVA's own templates have no word for video: a video goes where a still would."""
    folder = tmp_path / "copy"
    shutil.copytree(llava.folder, folder)
    template = (
        "{% for m in messages %}{{ m['role'].upper() }}: "
        "{% for part in m['content'] | selectattr('type', 'equalto', 'image') %}<image>\n{% endfor %}"
        "{% for part in m['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }} {% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(template)
    language = models.load_language_model(str(folder), device="cpu")
    video = encode_item(llava.tower, make_info("video", frames=2))
    prompt = language.prompt(Request([video], "hi", system="be short"))
    text = f"SYSTEM: be short USER: {'<image>' * len(video.kept)}\nhi ASSISTANT:"
    assert prompt.ids.tolist() == language.tokenizer(text).input_ids
