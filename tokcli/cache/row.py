"""One stored row of the data table, without making Python objects of its blobs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tokcli.cache.codec import Codec, Count
from tokcli.cache.codecs import CODECS
from tokcli.cache.schema import BLOBS, META_PREFIX
from tokcli.cache.tensors import Bytes
from tokcli.errors import IntegrityError

if TYPE_CHECKING:
    import torch

_HEAVY = frozenset((*BLOBS, "times", "indices", "stats"))


_Blobs = tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], pa.Buffer]
"""Where each value of a binary column starts, the end of the last with them; which are not null; all bytes."""

_Numbers = tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], npt.NDArray[Any]]
"""The same of a list column, with all numbers."""

_RUN = 128
"""Rows of which a column's values are turned into Python together."""


class Columns(dict[str, pa.Array]):
    """Columns of row groups.

    For who takes rows in order their values are turned into Python a run at a time; who picks rows at random wants one
    value of many, and gets that one.
    """

    def __init__(self, arrays: Mapping[str, pa.Array]) -> None:
        super().__init__(arrays)
        self.meta = [name for name in arrays if name.startswith(META_PREFIX)]
        """Names of the user's own columns."""
        self._light = [(name, array) for name, array in arrays.items() if name not in _HEAVY]
        self._run: tuple[int, list[dict[str, Any]]] = -1, []
        self._single: tuple[int, dict[str, Any]] = -1, {}
        self._blobs: dict[str, _Blobs] = {}
        self._numbers: dict[str, _Numbers] = {}

    def head(self, number: int) -> Mapping[str, Any]:
        """All small columns of a row as Python objects, by name."""
        run, place = divmod(number, _RUN)
        if self._run[0] != run:
            last, values = self._single
            if last == number:
                return values
            if last < 0 or last // _RUN != run:
                self._single = number, {name: array[number].as_py() for name, array in self._light}
                return self._single[1]
            columns = [array.slice(run * _RUN, _RUN).to_pylist() for _, array in self._light]
            names = [name for name, _ in self._light]
            self._run = run, [dict(zip(names, values)) for values in zip(*columns)]
        return self._run[1][place]

    def blob(self, name: str, number: int) -> pa.Buffer | None:
        """A binary column's bytes, not copied: a scalar of Arrow's would own a copy of them."""
        if name not in self._blobs:
            array = self[name]
            _, offsets, data = array.buffers()
            within = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
            self._blobs[name] = (within, _valid(array), data or pa.py_buffer(b""))
        starts, valid, data = self._blobs[name]
        if not valid[number]:
            return None
        first, end = starts[number : number + 2].tolist()
        return data.slice(first, end - first)

    def numbers(self, name: str, number: int) -> npt.NDArray[Any] | None:
        """A list column's values, not copied."""
        if name not in self._numbers:
            array = self[name]
            starts, numbers = (part.to_numpy(zero_copy_only=False) for part in (array.offsets, array.values))
            self._numbers[name] = (starts, _valid(array), numbers)
        starts, valid, values = self._numbers[name]
        return values[starts[number] : starts[number + 1]] if valid[number] else None


def _valid(array: pa.Array) -> npt.NDArray[np.bool_]:
    valid: npt.NDArray[np.bool_] = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


class StoredRow:
    """Row ``number`` of the columns of row groups."""

    def __init__(
        self,
        columns: Columns,
        number: int,
        codec: Codec | None = None,
        blobs: Mapping[str, Bytes] = MappingProxyType({}),
        *,
        owned: bool = False,
    ) -> None:
        """``codec`` is that of the cache, where the row alone does not tell how its tokens are read; ``blobs`` are
        those that do not lie in ``columns``."""
        self._columns, self._number, self._codec, self._blobs = columns, number, codec, blobs
        self.owned = owned
        """Whether nobody else sees the memory of ``source``, ``coords`` and ``tokens``: it can be given away."""

    def __getitem__(self, name: str) -> Any:
        """The value of a column as a Python object. Raises ``KeyError`` for an unknown column."""
        return self._columns[name][self._number].as_py() if name in _HEAVY else self.head()[name]

    def levels(self) -> int:
        """DeepStack levels beside each token."""
        return int(self["deepstack_levels"]) if "deepstack_levels" in self._columns else 0

    def head(self) -> Mapping[str, Any]:
        """All small columns."""
        return self._columns.head(self._number)

    def metadata(self) -> dict[str, Any]:
        """The user's own columns, without their prefix."""
        return {name.removeprefix(META_PREFIX): self[name] for name in self._columns.meta}

    def buffer(self, name: str) -> Bytes | None:
        """The bytes of a blob, not copied."""
        return self._blobs[name] if name in self._blobs else self._columns.blob(name, self._number)

    def numbers(self, name: str) -> npt.NDArray[Any] | None:
        """A list column's values, not copied; None where it is null."""
        return self._columns.numbers(name, self._number)

    @property
    def codec(self) -> Codec:
        """How its tokens are read. Raises ``KeyError`` for a way that this tokcli does not know."""
        return self._codec or CODECS[self["dtype"]]

    def tokens(self) -> torch.Tensor:
        """(K, D), which may share the buffer's memory; the lengths must have been checked."""
        buffer, width = self.buffer("tokens"), self["hidden_size"]
        assert buffer is not None
        return self.decoded(buffer).view(self["num_tokens"], width)

    def decoded(self, content: Bytes) -> torch.Tensor:
        """(N, D): tokens that are stored as those of this row are, levels as vectors of their own behind each."""
        return self.codec.decode(content, self["hidden_size"] // (1 + self.levels()))

    def integers(self, name: str) -> npt.NDArray[np.int32]:
        """A blob of int32, not copied; empty where it is null."""
        buffer = self.buffer(name)
        return np.empty(0, "<i4") if buffer is None else np.frombuffer(buffer, "<i4")

    def blob_sizes(self, count: Count) -> dict[str, Count]:
        """Bytes that each blob of a row like this one with ``count`` tokens must have, where it is there.

        Raises ``IntegrityError`` for what can't be.
        """
        dtype, levels = self["dtype"], self.levels()
        if dtype not in CODECS:
            raise IntegrityError(f"tokens stored as {dtype!r}, which this tokcli does not know")
        if levels < 0 or self["hidden_size"] % (1 + levels):
            raise IntegrityError(f"{self['hidden_size']} numbers per token can't be a token and {levels} levels")
        tokens_size = CODECS[dtype].num_bytes(count * (1 + levels), self["hidden_size"] // (1 + levels))
        return {"tokens": tokens_size, "coords": 16 * count, "source": 4 * count, "mass": 4 * count}

    def lengths_problem(self) -> str | None:
        """What is wrong with the lengths of the blobs; None if nothing is."""
        try:
            sizes = self.blob_sizes(int(self["num_tokens"]))
        except IntegrityError as error:
            return str(error)
        for name, size in sizes.items():
            buffer = self.buffer(name)
            if buffer is None and name != "mass":
                return f"{name} is missing"
            if buffer is not None and buffer.size != size:
                return f"{name} has {buffer.size} bytes, {self['num_tokens']} tokens need {size}"
        return None
