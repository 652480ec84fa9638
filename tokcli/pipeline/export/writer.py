"""What every format's writer has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Protocol

import torch

from tokcli.pipeline.export.items import facts_of_item, safe_name, tensors_of
from tokcli.types import EncodedItem


def save_tensors(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file. Raises ``OSError`` where the disk refuses, as all other writing does."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


class Writer(Protocol):
    """Writes items into a folder that is there already, in the order in which they come."""

    def write(self, item: EncodedItem) -> None:
        """Add an item. Raises ``UsageError`` for one that the format can't hold."""

    def close(self) -> None:
        """Finish: after it the folder is complete."""


class Sharded(ABC):
    """Base of formats with several items in a file: a file ends before it would be larger than its limits."""

    def __init__(self, folder: Path, dtype: str, limits: tuple[int, int]) -> None:
        self.folder, self.dtype = folder, dtype
        self.max_items, self.max_bytes = limits
        self.shards = 0
        """Files begun so far."""
        self._number = self._items = self._bytes = 0

    def write(self, item: EncodedItem) -> None:
        tensors, facts = tensors_of(item, self.dtype), facts_of_item(item)
        size = sum(tensor.nbytes for tensor in tensors.values())
        if self._items and (self._items >= self.max_items or self._bytes + size > self.max_bytes):
            self._finish()
        if not self._items:
            self.begin(self.shards)
            self.shards += 1
        self.add(safe_name(self._number, item.id), tensors, facts)
        self._items, self._bytes, self._number = self._items + 1, self._bytes + size, self._number + 1

    def close(self) -> None:
        if self._items:
            self._finish()

    def _finish(self) -> None:
        self.end()
        self._items = self._bytes = 0

    @abstractmethod
    def begin(self, shard: int) -> None:
        """Begin a file; ``shard`` counts them from 0."""

    @abstractmethod
    def add(self, name: str, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """Put an item into it; ``tensors`` and ``facts`` as :mod:`tokcli.pipeline.export.items` makes them."""

    @abstractmethod
    def end(self) -> None:
        """Finish the file."""
