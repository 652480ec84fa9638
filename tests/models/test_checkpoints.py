"""From names to folders, and what is said about names that lead nowhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tokcli.errors import ModelError
from tokcli.models import list_models, load_tower, resolve_checkpoint
from tokcli.models.checkpoints import canonical_name, known_models, revision_of, weight_files


def test_a_folder(qwen25: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_checkpoint(str(qwen25)) == qwen25.resolve()
    monkeypatch.chdir(qwen25.parent)
    assert resolve_checkpoint(qwen25.name) == qwen25.resolve()
    assert canonical_name(qwen25.name) == str(qwen25.resolve())
    assert (
        canonical_name("nano") == "nano" and canonical_name("Qwen/Qwen2-VL-2B-Instruct") == "Qwen/Qwen2-VL-2B-Instruct"
    )


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("nanoo", "nano"), ("qwen2.5-vl-7b-instruct", "Qwen/Qwen2.5-VL-7B-Instruct"), ("./nowhere", "")],
)
def test_unknown_names(name: str, nearest: str) -> None:
    with pytest.raises(ModelError) as caught:
        resolve_checkpoint(name)
    message = str(caught.value)
    assert message.startswith(f"unknown model '{name}': no such folder")
    assert "bundled (nano, nano-clip); `tokcli models` lists" in message and "\n" not in message
    assert message.endswith(f"; nearest: {nearest}" if nearest else "families")


def test_a_hub_id_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = r"model 'Qwen/Qwen2.5-VL-7B-Instrukt' is not in the local hub cache and HF_HUB_OFFLINE is set; .*"
    with pytest.raises(ModelError, match=message + "nearest: Qwen/Qwen2.5-VL-7B-Instruct"):
        resolve_checkpoint("Qwen/Qwen2.5-VL-7B-Instrukt")


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def fail(*args: object, local_files_only: bool, **kwargs: object) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not cached")
        raise ConnectionError("name resolution failed\nsecond line")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError, match="can't be downloaded: name resolution failed; ") as caught:
        resolve_checkpoint("Qwen/Qwen2-VL-7B-Instruct")
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith("failed; download it where the hub can be reached, and give its folder with --model")


def test_the_local_hub_cache_is_used_first(qwen25: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "models--a--b" / "snapshots" / commit
    shutil.copytree(qwen25, folder)
    asked: list[tuple[str, str | None, bool]] = []

    def cached(repository: str, *, revision: str | None, local_files_only: bool, **kwargs: object) -> str:
        asked.append((repository, revision, local_files_only))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    tower = load_tower("a/b@v1.0", device="cpu")
    assert asked == [("a/b", "v1.0", True)]
    assert tower.identity["model"] == "a/b@v1.0" and tower.identity["revision"] == commit == revision_of(folder)


def test_incomplete_folders(qwen25: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json; give a checkpoint folder"):
        resolve_checkpoint(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        ModelError, match=r"holds no weights: model\.safetensors or model\.safetensors\.index\.json is needed"
    ):
        resolve_checkpoint(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_text("")
    with pytest.raises(ModelError, match=r"\(only pytorch_model.bin, save it as safetensors\)"):
        resolve_checkpoint(str(tmp_path))
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-2.safetensors").write_text("")
    with pytest.raises(ModelError, match=r"lacks model-1.safetensors, which its index names \(1 of 2 files missing\)"):
        weight_files(tmp_path)
    with pytest.raises(ModelError, match="is a file; give the checkpoint folder"):
        resolve_checkpoint(str(qwen25 / "config.json"))


def test_families_without_an_adapter(qwen25: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fuyu"
    shutil.copytree(qwen25, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "fuyu"}))
    message = r"is of the family 'fuyu', for which there is no adapter; supported: qwen2_5_vl, .*, internvl, .*gemma3$"
    with pytest.raises(ModelError, match=message):
        load_tower(str(folder), device="cpu")


def test_the_list() -> None:
    rows = list_models()
    assert json.loads(json.dumps(rows)) == rows
    qwen = ["qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"]
    llava = ["llava", "llava_next", "llava_next_video", "llava_onevision"]
    glm, others = ["glm4v", "glm4v_moe", "glm46v"], ["internvl", "smolvlm", "idefics3", "gemma3"]
    assert [row["name"] for row in rows] == ["nano", "nano-clip", *qwen, *glm, *llava, *others]
    assert len({tuple(sorted(row)) for row in rows}) == 1
    assert {name for row in rows for name in row["checkpoints"]} == set(known_models())


def test_importing_and_listing_cost_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, tokcli.models as m; m.list_models(); m.Sizer; "
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_resolves() -> None:
    import tokcli.models

    assert all(getattr(tokcli.models, name) is not None for name in tokcli.models.__all__)
    assert sorted(tokcli.models._HOMES) == sorted(tokcli.models.__all__)
    with pytest.raises(AttributeError, match="no attribute 'load_towr'"):
        tokcli.models.load_towr  # noqa: B018
