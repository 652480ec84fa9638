"""Which weights an evaluation was made with."""

from __future__ import annotations

from pathlib import Path

from blake3 import blake3

from tokcli.models import resolve_checkpoint
from tokcli.models.checkpoints import weight_files

_BLOCKS, _BLOCK_BYTES = 256, 1 << 16


def weights_digest(model: str) -> str:
    """32 hex digits that change with a checkpoint's configuration, tokenizer or weights, whatever its name.

    Of large weight files only blocks at even distances are read, up to 16 MiB a file: training changes all of them.
    Raises ``ModelError`` for a checkpoint that is not there.
    """
    folder = resolve_checkpoint(model)
    digest = blake3()
    weights = weight_files(folder)
    texts = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".jinja", ".txt", ".model"))
    for path in (*texts, *weights):
        digest.update(f"{path.name}:{path.stat().st_size}\n".encode())
        for block in _sampled(path):
            digest.update(block)
    return digest.hexdigest(length=16)


def _sampled(path: Path) -> list[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _BLOCKS * _BLOCK_BYTES:
            return [file.read()]
        blocks = []
        for number in range(_BLOCKS):
            file.seek((size - _BLOCK_BYTES) * number // (_BLOCKS - 1))
            blocks.append(file.read(_BLOCK_BYTES))
        return blocks
