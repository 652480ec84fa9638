"""The tokens of a whole cache, a row group at a time: for what goes through all of them and asks for little beside.

An item costs a fifth of a millisecond for what is known of it beside its tokens. A row group is one read, or none where
the file is mapped, and nothing is done about columns that nobody asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache, partial
from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from tokcli.cache.bulk import group_blobs
from tokcli.cache.direct import Offsets
from tokcli.cache.files import ShardFiles
from tokcli.cache.parquet import reading
from tokcli.types import EncodedItem

if TYPE_CHECKING:
    import torch

    from tokcli.cache.reader import Cache

Name: TypeAlias = Literal["tokens", "deepstack", "coords", "source"]


class TokenBlock:
    """Rows of a cache that lie together: items, or of an item of more than 4 MiB of tokens a part.

    Tensors are made when they are asked for, and may be written to. Those of a mapped file keep all of it mapped.
    """

    def __init__(
        self, ids: Sequence[str], counts: Sequence[int], tensor: Callable[[Name], torch.Tensor | None]
    ) -> None:
        """``counts`` of tokens in each row; ``tensor`` makes those of all rows."""
        self.ids = tuple(ids)
        """Of each row the id of its item."""
        self.starts = list(accumulate(counts, initial=0))
        """At which token each row begins, and how many tokens there are in all."""
        self._tensor = tensor

    def __len__(self) -> int:
        return self.starts[-1]

    def __repr__(self) -> str:
        return f"TokenBlock({len(self)} tokens of {len(set(self.ids))} items)"

    @cached_property
    def tokens(self) -> torch.Tensor:
        """(N, D), in the cache's dtype or what its codec decodes to."""
        return self._asked("tokens")

    @cached_property
    def deepstack(self) -> torch.Tensor | None:
        """(N, L, D) where the language model takes such levels, None elsewhere."""
        return self._tensor("deepstack")

    @cached_property
    def coords(self) -> torch.Tensor:
        """int32 (N, 4): view, t, y, x."""
        return self._asked("coords")

    @cached_property
    def source(self) -> torch.Tensor:
        """int64 (N,): the place of each token among those that the tower made of its item."""
        return self._asked("source")

    def _asked(self, name: Name) -> torch.Tensor:
        tensor = self._tensor(name)
        assert tensor is not None
        return tensor


def token_blocks(cache: Cache, files: ShardFiles, *, check: bool, memory_map: bool) -> Iterator[TokenBlock]:
    """See ``Cache.blocks``; ``files`` are those of its shards."""
    item_of = lru_cache(1)(cache.__getitem__)  # whose rows may come one by one
    for number, items in groupby(cache.ids(), key=lambda item_id: cache.index.items[item_id].shard):
        rows, ids = _rows_of(cache, items)
        if (direct := files.direct(number)) is None:
            yield from (_item_block(cache[item_id]) for item_id in dict.fromkeys(ids))
            continue
        places, reader = direct
        with reading(path := cache.index.shards[number].path):
            read = reader.mapped() if memory_map else reader.read
        for group, (first, end) in enumerate(pairwise(np.searchsorted(rows, places.starts).tolist())):
            if first == end:
                continue
            with reading(path, ids[first]):
                blobs = group_blobs(places, read, group, rows[first:end], check=check)
            if blobs is None:
                # Where anything is wrong it is told of the item.
                yield from _row_blocks(cache, item_of, places.counts, rows[first:end], ids[first:end])
            else:
                counts = places.counts[rows[first:end]].tolist()
                for part in blobs.parts():
                    yield TokenBlock(ids[first:end][part], counts[part], partial(blobs.tensor, part))


def _rows_of(cache: Cache, items: Iterable[str]) -> tuple[Offsets, list[str]]:
    """Rows of these items of a shard in order, and of each the item."""
    rows: list[int] = []
    ids: list[str] = []
    for item_id in items:
        place = cache.index.items[item_id]
        rows.extend(range(place.first, place.first + place.count))
        ids.extend([item_id] * place.count)
    return np.array(rows, np.int64), ids


def _row_blocks(
    cache: Cache, item_of: Callable[[str], EncodedItem], counts: Offsets, rows: Offsets, ids: Sequence[str]
) -> Iterator[TokenBlock]:
    """Of each row its own, read with its item; ``counts`` of tokens in all rows of the shard."""
    for row, item_id in zip(rows.tolist(), ids):
        first = cache.index.items[item_id].first
        start, stop = int(counts[first:row].sum()), int(counts[first : row + 1].sum())
        yield _item_block(item_of(item_id), slice(start, stop))


def _item_block(item: EncodedItem, part: slice = slice(None)) -> TokenBlock:
    def tensor(name: Name) -> torch.Tensor | None:
        whole: torch.Tensor | None = getattr(item.kept, name)
        return None if whole is None else whole[part]

    return TokenBlock([item.id], [len(item.kept.source[part])], tensor)
