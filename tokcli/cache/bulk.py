"""The blobs of a row group of a local shard, past pyarrow, and tensors of many rows over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from tokcli.cache.direct import PREFIX, BlobPlaces, Offsets
from tokcli.cache.levels import parted
from tokcli.cache.page import is_whole
from tokcli.cache.row import StoredRow
from tokcli.cache.tensors import tensor_view

if TYPE_CHECKING:
    import torch

COPIED_BYTES = 256 << 10
"""Of a row's tokens: shorter ones are put together with those of other rows, longer ones used where they are."""

_Bytes: TypeAlias = npt.NDArray[np.uint8]
Reader: TypeAlias = Callable[[int, int], _Bytes]
"""Gives the bytes from one place of a file up to another."""

_PREFIX_BYTES = np.arange(PREFIX, 0, -1)


@dataclass(frozen=True)
class Blobs:
    """Those of some rows, as they lie in a file."""

    values: Mapping[str, Sequence[_Bytes]]
    like: StoredRow
    """A row of the same shard, whose tokens are stored as theirs."""

    def parts(self) -> list[slice]:
        """Rows that make one tensor."""
        tokens = self.values["tokens"]
        if self.like.codec.lossy or max(map(len, tokens)) < COPIED_BYTES:
            return [slice(0, len(tokens))]
        return [slice(row, row + 1) for row in range(len(tokens))]

    def tensor(self, part: slice, name: str) -> torch.Tensor | None:
        """Of these rows ``tokens`` (N, D), ``deepstack`` (N, L, D) or None, ``coords`` int32 (N, 4) or ``source`` int64
        (N,)."""
        if name == "coords":
            return tensor_view(_together(self.values[name][part]), "int32", 4)
        if name == "source":
            return tensor_view(_together(self.values[name][part]), "int32").long()
        return self._parted(self.values["tokens"][part])[name == "deepstack"]

    def _parted(self, values: Sequence[_Bytes]) -> tuple[torch.Tensor, torch.Tensor | None]:
        import torch

        # What a codec makes of a row stands by itself; numbers as they are do together.
        parts = values if self.like.codec.lossy else [_together(values)]
        vectors = [self.like.decoded(part) for part in parts]
        whole = vectors[0] if len(vectors) == 1 else torch.cat(vectors)
        return parted(whole.view(-1, self.like["hidden_size"]), self.like.levels())


def _together(values: Sequence[_Bytes]) -> _Bytes:
    return values[0] if len(values) == 1 else np.concatenate(values)


def group_blobs(places: BlobPlaces, read: Reader, group: int, rows: Offsets, *, check: bool) -> Blobs | None:
    """Those of these rows of a row group, of whose file ``read`` gives bytes.

    None where they are not laid out as tokcli writes them, or, with ``check``, are not what was written, by the
    checksums of their pages. Raises what ``read`` does.
    """
    if not places.plain[group]:
        return None
    pages = [of_name[group].tolist() for of_name in places.pages.values()]
    begin = pages[0][0]
    region = read(begin, pages[-1][1])
    if check and not all(is_whole(region[first - begin : end - begin]) for first, end in pages):
        return None
    values: dict[str, list[_Bytes]] = {}
    for name, (begins, lengths) in places.values.items():
        firsts, sizes = begins[rows] + (PREFIX - begin), lengths[rows]
        told = region[firsts[:, None] - _PREFIX_BYTES].view("<u4")[:, 0]
        if (told != sizes).any():
            return None
        values[name] = [region[first : first + size] for first, size in zip(firsts.tolist(), sizes.tolist())]
    return Blobs(values, places.like)
