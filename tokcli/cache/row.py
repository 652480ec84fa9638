"""One stored row of the data table, without making Python objects of its blobs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tokcli.cache.codec import Codec
from tokcli.cache.codecs import CODECS
from tokcli.cache.schema import BLOBS, META_PREFIX
from tokcli.cache.tensors import Bytes

if TYPE_CHECKING:
    import torch

_HEAVY = frozenset((*BLOBS, "times", "indices", "stats"))


_Blobs = tuple[list[int], list[bool], pa.Buffer]
"""Where each value of a binary column starts, the end of the last with them; which are not null; all bytes."""

_Numbers = tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_] | None, npt.NDArray[Any]]
"""The same of a list column, with all numbers; None where none is null."""

Stat = tuple[str, str, npt.NDArray[np.float64]]
"""Name, dtype and values of an array of statistics."""


class Columns(dict[str, pa.Array]):
    """The columns of a row group. What its rows are asked for again and again is turned into Python once."""

    def __init__(self, arrays: Mapping[str, pa.Array]) -> None:
        super().__init__(arrays)
        self._small = [name for name in self if name not in _HEAVY]
        self.users = [name for name in self if name.startswith(META_PREFIX)]
        """The user's own columns."""
        self._first: tuple[int, dict[str, Any]] | None = None
        self._heads: list[tuple[Any, ...]] | None = None
        self._blobs: dict[str, _Blobs] = {}
        self._numbers: dict[str, _Numbers] = {}
        self._stats: list[list[Stat] | None] | None = None

    def head(self, number: int) -> dict[str, Any]:
        """A row's small columns as Python objects."""
        if self._heads is None:
            # Who wants one row of many at random should not pay for all of them.
            if self._first is None:
                self._first = (number, {name: self[name][number].as_py() for name in self._small})
            if self._first[0] == number:
                return self._first[1]
            self._heads = list(zip(*(self[name].to_pylist() for name in self._small)))
        return dict(zip(self._small, self._heads[number]))

    def blob(self, name: str, number: int, memory: memoryview | None = None) -> Bytes | None:
        """A binary column's bytes, not copied: a scalar of Arrow's would own a copy of them.

        ``memory`` is the file as it was mapped for this row, where it was.
        """
        if name not in self._blobs:
            array = self[name]
            _, offsets, data = array.buffers()
            within = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
            self._blobs[name] = (within.tolist(), array.is_valid().to_pylist(), data or pa.py_buffer(b""))
        starts, valid, data = self._blobs[name]
        return data.slice(starts[number], starts[number + 1] - starts[number]) if valid[number] else None

    def numbers(self, name: str, number: int) -> npt.NDArray[Any] | None:
        """A list column's values, not copied."""
        if name not in self._numbers:
            array = self[name]
            valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
            self._numbers[name] = (array.offsets.to_numpy(), valid, array.values.to_numpy(zero_copy_only=False))
        starts, valid, values = self._numbers[name]
        return values[starts[number] : starts[number + 1]] if valid is None or valid[number] else None

    def stats(self, number: int) -> list[Stat] | None:
        """A row's statistics, not copied."""
        if self._stats is None:
            array = self["stats"]
            structs = array.values
            arrays = structs.field("values")
            ends, numbers = arrays.offsets.to_pylist(), arrays.values.to_numpy(zero_copy_only=False)
            values = [numbers[first:end] for first, end in pairwise(ends)]
            stats = list(zip(structs.field("name").to_pylist(), structs.field("dtype").to_pylist(), values))
            rows = [stats[first:end] for first, end in pairwise(array.offsets.to_pylist())]
            self._stats = [row if valid else None for row, valid in zip(rows, array.is_valid().to_pylist())]
        return self._stats[number]


class StoredRow:
    """Row ``number`` of the columns of a row group."""

    def __init__(
        self,
        columns: Columns,
        number: int,
        codec: Codec | None = None,
        *,
        memory: memoryview | None = None,
        own: bool = False,
        checked: bool = True,
    ) -> None:
        """``codec`` is that of the cache, where the row alone does not tell how its tokens are read."""
        self._columns, self._number, self._codec, self._memory = columns, number, codec, memory
        self.own = own
        """Whether the memory of its blobs is nobody else's, and can be given away."""
        self.checked = checked
        """Whether whoever decodes it is to compare it with its checksum."""

    @cached_property
    def head(self) -> dict[str, Any]:
        """All small columns as Python objects."""
        return self._columns.head(self._number)

    def __getitem__(self, name: str) -> Any:
        """The value of a small column as a Python object. Raises ``KeyError`` for an unknown column."""
        return self.head[name]

    def levels(self) -> int:
        """DeepStack levels beside each token."""
        return int(self.head.get("deepstack_levels", 0))

    def metadata(self) -> dict[str, Any]:
        """The user's own columns, without their prefix."""
        return {name.removeprefix(META_PREFIX): self.head[name] for name in self._columns.users}

    def stats(self) -> list[Stat] | None:
        """The method's own numbers, not copied; None where they are null."""
        return self._columns.stats(self._number)

    def buffer(self, name: str) -> Bytes | None:
        """The bytes of a blob, not copied."""
        return self._columns.blob(name, self._number, self._memory)

    def numbers(self, name: str) -> npt.NDArray[Any] | None:
        """A list column's values, not copied; None where it is null."""
        return self._columns.numbers(name, self._number)

    def tokens(self) -> torch.Tensor:
        """(K, D), which may share the buffer's memory; the lengths must have been checked."""
        codec = self._codec or CODECS[self["dtype"]]
        buffer, width = self.buffer("tokens"), self["hidden_size"]
        assert buffer is not None
        return codec.decode(buffer, width // (1 + self.levels())).view(self["num_tokens"], width)

    def integers(self, name: str) -> npt.NDArray[np.int32]:
        """A blob of int32, not copied; empty where it is null."""
        buffer = self.buffer(name)
        return np.empty(0, "<i4") if buffer is None else np.frombuffer(buffer, "<i4")

    def lengths_problem(self) -> str | None:
        """What is wrong with the lengths of the blobs; None if nothing is."""
        count, dtype = self["num_tokens"], self["dtype"]
        if dtype not in CODECS:
            return f"tokens stored as {dtype!r}, which this tokcli does not know"
        levels = self.levels()
        if levels < 0 or self["hidden_size"] % (1 + levels):
            return f"{self['hidden_size']} numbers per token can't be a token and {levels} levels"
        vectors = count * (1 + levels)
        tokens_size = CODECS[dtype].num_bytes(vectors, self["hidden_size"] // (1 + levels))
        sizes = {"tokens": tokens_size, "coords": 16 * count, "source": 4 * count, "mass": 4 * count}
        for name, size in sizes.items():
            buffer = self.buffer(name)
            if buffer is None and name != "mass":
                return f"{name} is missing"
            if buffer is not None and len(buffer) != size:
                return f"{name} has {len(buffer)} bytes, {count} tokens need {size}"
        return None
