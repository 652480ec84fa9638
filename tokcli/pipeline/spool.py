"""A growing token matrix whose memory is bounded: beyond a limit the rows lie in an unlinked file, not on the heap."""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path
from typing import IO

import torch

MEMORY_BYTES = 64 << 20


class TokenSpool:
    """Collects (n, D) parts and gives them back as one (N, D) tensor.

    Memory-mapped pages are the kernel's to reclaim, so an hour of video does not need an hour of tokens in memory.
    The file has no name: nothing is left behind however the process ends.
    """

    def __init__(self, folder: Path, memory_bytes: int = MEMORY_BYTES) -> None:
        self.folder, self.memory_bytes = folder, memory_bytes
        self.parts: list[torch.Tensor] = []
        self.rows = 0
        self.num_bytes = 0
        self._file: IO[bytes] | None = None
        self._dtype: torch.dtype | None = None
        self._width = 0

    def append(self, tokens: torch.Tensor) -> None:
        """Add rows of (n, D); every part has the same D and dtype.

        Raises ``OSError`` where the folder's disk is full.
        """
        self._dtype, self._width = tokens.dtype, int(tokens.shape[1])
        self.rows += int(tokens.shape[0])
        self.num_bytes += tokens.numel() * tokens.element_size()
        if self._file is None and self.num_bytes <= self.memory_bytes:
            self.parts.append(tokens)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self.folder, prefix=".tmp-spool-")  # noqa: SIM115
        for part in (*self.parts, tokens):
            self._file.write(part.contiguous().view(torch.uint8).numpy().data)
        self.parts = []

    def tensor(self) -> torch.Tensor:
        """All rows, (N, D); backed by the file where there is one. Keep the spool alive as long as the tensor."""
        if self._file is None:
            return torch.cat(self.parts)
        self._file.flush()
        mapped = mmap.mmap(self._file.fileno(), self.num_bytes, access=mmap.ACCESS_COPY)
        assert self._dtype is not None
        return torch.frombuffer(mapped, dtype=self._dtype).view(self.rows, self._width)

    def close(self) -> None:
        self.parts = []
        if self._file is not None:
            self._file.close()
            self._file = None
