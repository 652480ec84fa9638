"""A shard of a local disk read a row group at a time, past pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from tokcli.cache.codec import Codec
from tokcli.cache.direct import DIRECT, PREFIX, BlobPlaces, DirectReader, Offsets
from tokcli.cache.layout import Shard
from tokcli.cache.levels import parted
from tokcli.cache.manifest import Manifest
from tokcli.cache.page import is_whole
from tokcli.cache.parquet import columns_of, open_shard, reading
from tokcli.cache.row import StoredRow
from tokcli.cache.tensors import tensor_view
from tokcli.errors import IntegrityError
from tokcli.storage import RemotePath

if TYPE_CHECKING:
    import torch

COPIED_BYTES = 256 << 10
"""Of a row's tokens: shorter ones are put together with those of other rows, longer ones used where they are."""

_Bytes: TypeAlias = npt.NDArray[np.uint8]
_PREFIX_BYTES = np.arange(PREFIX, 0, -1)


@dataclass(frozen=True)
class Blobs:
    """Those of some rows, as they lie in a file."""

    values: Mapping[str, Sequence[_Bytes]]
    codec: Codec
    hidden_size: int
    """Numbers per token, those of its levels included."""
    levels: int

    def parts(self) -> Iterator[tuple[slice, Blobs]]:
        """Rows that make one tensor, and their blobs."""
        tokens = self.values["tokens"]
        together = self.codec.lossy or max(map(len, tokens)) < COPIED_BYTES
        for part in [slice(0, len(tokens))] if together else [slice(row, row + 1) for row in range(len(tokens))]:
            yield part, replace(self, values={name: values[part] for name, values in self.values.items()})

    def tensor(self, name: str) -> torch.Tensor | None:
        """``tokens`` (N, D), ``deepstack`` (N, L, D) or None, ``coords`` int32 (N, 4) or ``source`` int64 (N,)."""
        if name == "coords":
            return tensor_view(_together(self.values[name]), "int32", 4)
        if name == "source":
            return tensor_view(_together(self.values[name]), "int32").long()
        return self._parted[name == "deepstack"]

    @cached_property
    def _parted(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        import torch

        values = self.values["tokens"]
        # What a codec makes of a row stands by itself; numbers as they are do together.
        parts = values if self.codec.lossy else [_together(values)]
        vectors = [self.codec.decode(part, self.hidden_size // (1 + self.levels)) for part in parts]
        whole = vectors[0] if len(vectors) == 1 else torch.cat(vectors)
        return parted(whole.view(-1, self.hidden_size), self.levels)


def _together(values: Sequence[_Bytes]) -> _Bytes:
    return values[0] if len(values) == 1 else np.concatenate(values)


class LocalShard:
    """An open shard whose rows are all stored alike; made by ``open``."""

    counts: Offsets
    """Tokens of every row."""
    starts: list[int]
    """First row of every row group, and the number of rows."""

    def __init__(self, file: pq.ParquetFile, reader: DirectReader, codec: Codec | None, *, check: bool) -> None:
        groups = range(file.metadata.num_row_groups)
        self.starts = list(accumulate((file.metadata.row_group(group).num_rows for group in groups), initial=0))
        self.counts = file.read(columns=["num_tokens"], use_threads=False)["num_tokens"].to_numpy().astype(np.int64)
        small = [name for name in file.schema_arrow.names if name not in DIRECT]
        self._first = StoredRow(columns_of(file.read_row_group(0, columns=small, use_threads=False)), 0, codec)
        self._places, self._reader, self._check = BlobPlaces(file.metadata), reader, check

    @classmethod
    def open(
        cls, shard: Shard, manifest: Manifest, codec: Codec | None, *, check: bool, memory_map: bool
    ) -> Self | None:
        """None for one that does not lie on a local disk. Raises ``IntegrityError`` for one that is damaged."""
        if isinstance(shard.path, RemotePath):
            return None
        with open_shard(shard, manifest) as file, reading(shard.path):
            return cls(file, DirectReader(shard.path, memory_map=memory_map), codec, check=check)

    def rows(self, group: int, wanted: Sequence[int]) -> Blobs | None:
        """Those of these rows of a row group; None where they are not laid out as tokcli writes them, or, with
        ``check``, are not what was written by the checksums of their pages.

        Raises ``OSError`` where the file can't be read, ``ValueError`` where it is shorter than it was.
        """
        start, end = self.starts[group], self.starts[group + 1]
        try:
            sizes = self._first.blob_sizes(self.counts[start:end])
        except IntegrityError:
            return None
        places = self._places.of_group(group, sizes)
        if places is None:
            return None
        begin = min(first for first, _ in places.pages.values())
        region = self._reader.read(begin, max(end for _, end in places.pages.values()))
        if self._check and not all(
            is_whole(region[first - begin : end - begin]) for first, end in places.pages.values()
        ):
            return None
        values: dict[str, list[_Bytes]] = {}
        rows = np.asarray(wanted) - start
        for name, (begins, lengths) in places.values.items():
            firsts = begins[rows] - begin + PREFIX
            told = region[firsts[:, None] - _PREFIX_BYTES].view("<u4")[:, 0]
            if not np.array_equal(told, lengths[rows]):
                return None
            ends = firsts + lengths[rows]
            values[name] = [region[first:last] for first, last in zip(firsts.tolist(), ends.tolist())]
        return Blobs(values, self._first.codec, self._first["hidden_size"], self._first.levels())
