"""The tokens of a whole cache, a row group at a time: for what goes through all of them and asks for little beside.

An item costs a fifth of a millisecond for what is known of it beside its tokens. A row group is one read, or none where
the file is mapped, and nothing is done about columns that nobody asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, TypeAlias

from tokcli.cache.bulk import LocalShard
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


def token_blocks(cache: Cache, *, check: bool, memory_map: bool) -> Iterator[TokenBlock]:
    """See ``Cache.blocks``."""
    rows_of: dict[int, dict[int, str]] = {}
    for item_id in cache.ids():
        place = cache.index.items[item_id]
        rows = rows_of.setdefault(place.shard, {})
        rows.update(dict.fromkeys(range(place.first, place.first + place.count), item_id))
    for number, rows in rows_of.items():
        shard = cache.index.shards[number]
        opened = LocalShard.open(shard, cache.manifest, cache.codec, check=check, memory_map=memory_map)
        if opened is None:
            for item_id in dict.fromkeys(rows.values()):
                yield _item_block(cache[item_id])
            continue
        for group, (first, end) in enumerate(zip(opened.starts, opened.starts[1:])):
            wanted = [row for row in range(first, end) if row in rows]
            if wanted:
                yield from _group_blocks(cache, opened, group, wanted, rows)


def _group_blocks(
    cache: Cache, shard: LocalShard, group: int, wanted: Sequence[int], ids: Mapping[int, str]
) -> Iterator[TokenBlock]:
    """One block of these rows; or of each its own, where what is wrong, if anything is, must be told of the item."""
    with reading(cache.index.shards[cache.index.items[ids[wanted[0]]].shard].path, ids[wanted[0]]):
        stored = shard.rows(group, wanted)
    if stored is not None:
        for part, blobs in stored.parts():
            yield TokenBlock([ids[row] for row in wanted[part]], shard.counts[wanted[part]].tolist(), blobs.tensor)
        return
    for row in wanted:
        first = cache.index.items[ids[row]].first
        start, stop = int(shard.counts[first:row].sum()), int(shard.counts[first : row + 1].sum())
        yield _item_block(cache[ids[row]], slice(start, stop))


def _item_block(item: EncodedItem, part: slice = slice(None)) -> TokenBlock:
    def tensor(name: Name) -> torch.Tensor | None:
        whole: torch.Tensor | None = getattr(item.kept, name)
        return None if whole is None else whole[part]

    return TokenBlock([item.id], [len(item.kept.source[part])], tensor)
