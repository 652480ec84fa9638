"""Fingerprints: equal for equal towers however they are stored, different for anything that changes the tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tokcli.errors import ModelError, OtherModelError
from tokcli.models import fingerprint, load_language_model
from tokcli.models.families import family_of
from tokcli.models.fingerprint import tower_fingerprint
from tokcli.models.loading import load_config
from tokcli.models.settings import read_preprocessing


def fingerprint_of(folder: Path) -> str:
    return tower_fingerprint(folder, family_of(folder), load_config(folder), read_preprocessing(folder))


@pytest.fixture
def copy(qwen25: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(qwen25, folder)
    return folder


def edit_tensor(part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        name = next(name for name in sorted(tensors) if part in name)
        tensors[name] = change(tensors[name].clone()).contiguous()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return edit


def edit_json(file: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return edit


def nudge(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1)[-1] += 1
    return tensor


@pytest.mark.parametrize(
    "edit",
    [
        edit_tensor("visual.blocks.2", nudge),
        edit_tensor("visual.merger", nudge),
        edit_tensor("visual.blocks.0.attn.proj.weight", lambda tensor: tensor.to(torch.bfloat16)),
        edit_json("config.json", lambda content: content["vision_config"].update(window_size=112)),
        edit_json("preprocessor_config.json", lambda content: content.update(max_pixels=50_000)),
    ],
    ids=["a weight of a block", "a weight of the merger", "a dtype", "the window", "the largest size"],
)
def test_changes_of_the_tower_show(edit: Callable[[Path], None], qwen25: Path, copy: Path) -> None:
    edit(copy)
    assert fingerprint_of(copy) != fingerprint_of(qwen25)


@pytest.mark.parametrize(
    "edit",
    [
        edit_tensor("layers.0", nudge),
        edit_tensor("lm_head", nudge),
        edit_json("config.json", lambda content: content.update(transformers_version="5.18.0")),
        edit_json("config.json", lambda content: content["vision_config"].update(initializer_range=0.5)),
    ],
    ids=["a weight of the language model", "its head", "the version", "a setting of training"],
)
def test_changes_of_the_rest_do_not(edit: Callable[[Path], None], qwen25: Path, copy: Path) -> None:
    edit(copy)
    assert fingerprint_of(copy) == fingerprint_of(qwen25)


def test_remembered_until_a_file_changes(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKCLI_HOME", str(tmp_path / "home"))
    hashed: list[int] = []
    plain = fingerprint._hash_tensors
    monkeypatch.setattr(fingerprint, "_hash_tensors", lambda *given: hashed.append(1) or plain(*given))
    first = fingerprint_of(copy)
    assert fingerprint_of(copy) == first and len(hashed) == 1
    edit_tensor("visual.blocks.2", nudge)(copy)
    assert fingerprint_of(copy) != first and len(hashed) == 2


def test_a_cache_folder_that_cannot_be_used_is_no_obstacle(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fingerprint_of(copy)
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("TOKCLI_HOME", str(blocked / "home"))
    assert fingerprint_of(copy) == expected


def test_a_damaged_memory_is_computed_anew(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKCLI_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    expected = fingerprint_of(copy)
    memories = list((tmp_path / "xdg" / "tokcli" / "fingerprints").iterdir())
    assert [file.read_text() for file in memories] == [expected]
    memories[0].write_text("half")
    assert fingerprint_of(copy) == expected


def test_another_tower_is_refused(qwen25: Path, copy: Path) -> None:
    edit_tensor("visual.merger", nudge)(copy)
    made = {"model": str(qwen25), "family": "qwen2_5_vl", "fingerprint": fingerprint_of(qwen25)}
    load_language_model(str(qwen25), device="cpu").check(made)
    with pytest.raises(OtherModelError) as caught:
        load_language_model(str(copy), device="cpu").check(made)
    assert caught.value.exit_code == 4
    message = str(caught.value)
    assert f"the cache was made by {qwen25} (qwen2_5_vl, tower {made['fingerprint'][:12]})" in message
    assert f"this is {copy} (qwen2_5_vl, tower {fingerprint_of(copy)[:12]})" in message
    assert f"use --model {qwen25} or compress again" in message and "\n" not in message


def test_truncated_and_foreign_files(copy: Path) -> None:
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    for content, message in ((whole[:-10], "is truncated"), (b"PK\x03\x04" * 9, "is not a readable safetensors file")):
        weights.write_bytes(content)
        with pytest.raises(ModelError, match=f"model.safetensors {message}; download the checkpoint again"):
            fingerprint_of(copy)
