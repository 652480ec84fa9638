"""WebDataset: tar files in which an item is a run of files with the same name and different endings."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import numpy as np
import torch

from tokcli.pipeline.export.writer import Sharded


class WebDatasetWriter(Sharded):
    """``shard-000000.tar`` with ``NAME.tokens.npy``, ``NAME.coords.npy`` and so on, and ``NAME.json``.

    The same items give the same bytes. NumPy has no bfloat16; float32 holds it without loss.
    """

    def begin(self, shard: int) -> None:
        # USTAR is what every reader of tar files knows.
        path = self.folder / f"shard-{shard:06d}.tar"
        self._tar = tarfile.TarFile(path, "w", format=tarfile.USTAR_FORMAT)

    def add(self, name: str, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        for key, tensor in tensors.items():
            array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            self._add(f"{name}.{key}.npy", content.getvalue())
        self._add(f"{name}.json", json.dumps(facts, ensure_ascii=False).encode())

    def _add(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        self._tar.addfile(member, io.BytesIO(content))

    def end(self) -> None:
        self._tar.close()
