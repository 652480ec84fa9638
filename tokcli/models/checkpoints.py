"""From the name of a model to a folder with its files."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from tokcli.errors import ModelError
from tokcli.models.families import BUNDLED, FAMILIES
from tokcli.models.settings import read_json

# A hub id, optionally with a branch, tag or commit: "Qwen/Qwen2.5-VL-3B-Instruct@main".
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


def known_models() -> list[str]:
    """The bundled models and the published checkpoints of the supported families."""
    return [*BUNDLED, *(checkpoint for family in FAMILIES.values() for checkpoint in family.checkpoints)]


def resolve_checkpoint(name: str) -> Path:
    """Folder that holds the checkpoint ``name``, complete enough to be loaded.

    Args:
        name: "nano" or "nano-clip" (bundled), a folder, or a hub id, looked up in the local hub cache first and
            downloaded if it isn't there; ``@revision`` may follow a hub id.

    Raises:
        ModelError: Unknown name, no such folder, no weights or configuration in it, or the hub can't be reached.
    """
    if name in BUNDLED:
        return _complete(Path(__file__).parent / BUNDLED[name].folder / "checkpoint", name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _complete(folder.resolve(), name)
    if folder.exists():
        raise ModelError(f"model {name!r} is a file; give the checkpoint folder that holds config.json and the weights")
    if name.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(name):
        raise ModelError(
            f"unknown model {name!r}: no such folder, no hub id, and not bundled ({', '.join(BUNDLED)}); "
            f"`tokcli models` lists the families{_nearest(name)}"
        )
    return _complete(_from_hub(name), name)


def canonical_name(name: str) -> str:
    """``name`` in a form that means the same from any working directory: folders become absolute paths."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if name not in BUNDLED and folder.is_dir() else name


def revision_of(folder: Path) -> str | None:
    """Commit of a folder in the hub's cache layout (``snapshots/<commit>``), None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None


def weight_files(folder: Path) -> list[Path]:
    """The checkpoint's safetensors files, sorted: those that the index names, or the single file.

    Raises:
        ModelError: There are none, or one that the index names is missing.
    """
    index = read_json(folder / "model.safetensors.index.json")
    names = sorted(set(index.get("weight_map", {}).values())) or ["model.safetensors"]
    files = [folder / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing and index:
        raise ModelError(
            f"{folder} lacks {missing[0]}, which its index names ({len(missing)} of {len(files)} files missing); "
            "download it again"
        )
    if missing:
        other = next((f" (only {path.name}, save it as safetensors)" for path in folder.glob("*.bin")), "")
        raise ModelError(
            f"{folder} holds no weights: model.safetensors or model.safetensors.index.json is needed{other}"
        )
    return files


def _complete(folder: Path, name: str) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"model {name!r}: {folder} holds no config.json; give a checkpoint folder as save_pretrained writes it"
        )
    weight_files(folder)
    return folder


def _from_hub(name: str) -> Path:
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        folder = _snapshot(name, local_files_only=True)
        weight_files(folder)
        return folder
    except (LocalEntryNotFoundError, ModelError, OSError, ValueError):
        # Not in the local cache, or only in part: a configuration that somebody looked at has no weights beside it.
        pass
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in {"1", "true", "yes", "on"}:
        raise ModelError(
            f"model {name!r} is not in the local hub cache and HF_HUB_OFFLINE is set; download it first{_nearest(name)}"
        )
    try:
        return _snapshot(name, local_files_only=False)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelError(f"model {name!r} is not on the hub, or needs a login{_nearest(name)}") from error
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"model {name!r} is not in the local hub cache and can't be downloaded: {lines[0][:200]}{_nearest(name)}; "
            "download it where the hub can be reached, and give its folder with --model"
        ) from error


def _snapshot(name: str, *, local_files_only: bool) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    return Path(
        snapshot_download(
            repository, revision=revision or None, allow_patterns=_FILES, local_files_only=local_files_only
        )
    )


def _nearest(name: str) -> str:
    by_lower = {known.lower(): known for known in known_models()}
    nearest = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f"; nearest: {by_lower[nearest[0]]}" if nearest and by_lower[nearest[0]] != name else ""
