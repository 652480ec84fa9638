"""Safetensors: a file for each item, or several items in one, and an index of where each of them is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tokcli.pipeline.export.writer import Sharded, save_tensors

INDEX = "index.json"


class SafetensorsWriter(Sharded):
    """``NAME.safetensors`` with the tensors by their names, or ``shard-000000.safetensors`` with ``NAME/tokens`` and so
    on; ``item`` or ``NAME`` in the file's metadata is JSON with what is known of the item. ``index.json`` lists the
    items with their file and the prefix of their tensors."""

    def __init__(self, folder: Path, dtype: str, limits: tuple[int, int]) -> None:
        super().__init__(folder, dtype, limits)
        self._alone = limits[0] == 1
        # Written as items come: a list of millions of them isn't held in memory.
        self._index = (folder / INDEX).open("w", encoding="utf-8")
        self._index.write('{"items": [')
        self._first = True

    def begin(self, shard: int) -> None:
        self._tensors: dict[str, torch.Tensor] = {}
        self._metadata: dict[str, str] = {"format": "pt"}
        self._file = f"shard-{shard:06d}.safetensors"

    def add(self, name: str, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        prefix = "" if self._alone else f"{name}/"
        if self._alone:
            self._file = f"{name}.safetensors"
        self._tensors |= {prefix + key: tensor for key, tensor in tensors.items()}
        self._metadata["item" if self._alone else name] = json.dumps(facts, ensure_ascii=False)
        entry = {"id": facts["id"], "file": self._file, "prefix": prefix, "tokens": facts["kept_tokens"]}
        self._index.write(("\n" if self._first else ",\n") + json.dumps(entry, ensure_ascii=False))
        self._first = False

    def end(self) -> None:
        save_tensors(self._tensors, self.folder / self._file, self._metadata)
        self._tensors = {}

    def close(self) -> None:
        super().close()
        self._index.write("\n]}\n")
        self._index.close()
