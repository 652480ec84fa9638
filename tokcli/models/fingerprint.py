"""One name for all that decides what a vision tower computes: equal fingerprints, interchangeable tokens."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from tokcli.errors import ModelError
from tokcli.models.base import FamilyAdapter
from tokcli.models.checkpoints import weight_files
from tokcli.models.settings import Preprocessing

_VERSION = 1


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's bytes are."""

    file: Path
    begin: int
    """First byte in the file, and one past the last."""
    end: int
    dtype: str
    shape: tuple[int, ...]


def tower_fingerprint(folder: Path, family: FamilyAdapter, config: Any, preprocessing: Preprocessing) -> str:
    """blake3 (64 hex digits) over the tower's settings, the preprocessing, and every stored tensor of the vision half.

    Does not depend on how the tensors are spread over files, nor on which layout of names the checkpoint uses. The
    result is remembered in the user's cache folder for as long as path, size and time of the files stay the same.

    Raises:
        ModelError: There are no weights, or no vision tower among them.
    """
    files = weight_files(folder)
    settings = {
        "version": _VERSION,
        "family": config.model_type,
        "vision": family.tower_settings(config),
        "preprocessing": preprocessing.to_json(),
    }
    # Through JSON once, so that a tuple and a list are the same setting.
    head = json.dumps(settings, sort_keys=True).encode()
    memo = _memo_file(head, files)
    known = _recall(memo)
    if known is not None:
        return known
    digest = _hash_tensors(head, _vision_tensors(folder, family, files))
    _remember(memo, digest)
    return digest


def stored_tensors(file: Path) -> dict[str, StoredTensor]:
    """Names and places of the tensors in a safetensors file.

    Raises:
        ModelError: The file is truncated or no safetensors file.
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, file.stat().st_size)))
        tensors = {
            name: StoredTensor(
                file,
                8 + length + entry["data_offsets"][0],
                8 + length + entry["data_offsets"][1],
                entry["dtype"],
                tuple(entry["shape"]),
            )
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ModelError(f"{file} is not a readable safetensors file; download the checkpoint again") from error
    if any(tensor.end > file.stat().st_size for tensor in tensors.values()):
        raise ModelError(f"{file} is truncated; download the checkpoint again")
    return tensors


def half_bytes(folder: Path, family: FamilyAdapter) -> tuple[int, int]:
    """Bytes of the vision half's and of the language half's tensors in the checkpoint's files.

    Raises:
        ModelError: As :func:`tower_fingerprint`.
    """
    files = weight_files(folder)
    sizes = [tensor.end - tensor.begin for file in files for tensor in stored_tensors(file).values()]
    tower = sum(tensor.end - tensor.begin for tensor in _vision_tensors(folder, family, files).values())
    return tower, sum(sizes) - tower


def _vision_tensors(folder: Path, family: FamilyAdapter, files: Sequence[Path]) -> Mapping[str, StoredTensor]:
    """Tensors of the vision half by the name they have inside it."""
    # Longest first: "model.visual." must not be taken for a tensor "visual." of something called "model".
    prefixes = sorted(family.vision_prefixes, key=len, reverse=True)
    tensors = {}
    for file in files:
        for name, tensor in stored_tensors(file).items():
            prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
            if prefix is not None:
                tensors[name.removeprefix(prefix)] = tensor
    if not tensors:
        raise ModelError(
            f"{folder} holds no vision tower (no tensor named {family.vision_prefixes[0]}*); use the full checkpoint"
        )
    return tensors


def _hash_tensors(head: bytes, tensors: Mapping[str, StoredTensor]) -> str:
    digest = blake3(head)
    for name, view in _bytes_of(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, tensor.dtype, tensor.shape]).encode())
        digest.update(view)
    return digest.hexdigest()


def _bytes_of(tensors: Mapping[str, StoredTensor]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each tensor by name; files are mapped, and one tensor at a time is in memory."""
    with contextlib.ExitStack() as stack:
        maps: dict[Path, mmap.mmap] = {}
        for name in sorted(tensors):
            tensor = tensors[name]
            if tensor.file not in maps:
                stream = stack.enter_context(tensor.file.open("rb"))
                maps[tensor.file] = stack.enter_context(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
            yield name, maps[tensor.file][tensor.begin : tensor.end]


def _memo_file(head: bytes, files: Sequence[Path]) -> Path:
    key = blake3(head)
    for file in files:
        resolved = file.resolve()
        status = resolved.stat()
        key.update(json.dumps([str(resolved), status.st_size, status.st_mtime_ns]).encode("utf-8", "surrogateescape"))
    return _cache_folder() / "fingerprints" / key.hexdigest()


def _cache_folder() -> Path:
    if home := os.environ.get("TOKCLI_HOME"):
        return Path(home)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "tokcli"


def _recall(memo: Path) -> str | None:
    try:
        known = memo.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return known if len(known) == 64 else None


def _remember(memo: Path, digest: str) -> None:
    # A cache folder that can't be written costs the next run a second or two, never this run its result.
    with contextlib.suppress(OSError):
        memo.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=memo.parent, delete=False) as temporary:
            temporary.write(digest)
        Path(temporary.name).replace(memo)
