"""A cache as a dataset of torch: by number, or as a stream that ranks and workers share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from tokcli.errors import UsageError
from tokcli.pipeline.subjects import known

if TYPE_CHECKING:
    from tokcli.api.caches import TokenCache

TENSORS = ("tokens", "coords", "mass", "source", "times", "assignment", "deepstack")


class Samples:
    """What a dataset gives for a number: an item, or a dictionary of the columns asked for."""

    def __init__(self, cache: TokenCache, columns: Sequence[str] | None) -> None:
        """Raises ``UsageError`` for a column that isn't there."""
        # By shard, and fixed now: workers open the cache anew and may find more in it.
        shards = cache.ids_by_shard()
        self.cache = cache
        self.ids = [item_id for shard in shards for item_id in shard]
        self.shard_sizes = [len(shard) for shard in shards]
        self.columns = None if columns is None else list(columns)
        self._table = None
        names = [name for name in self.columns or () if name not in TENSORS]
        if names:
            table = known(cache)
            if unknown := [name for name in names if name not in table.column_names]:
                raise UsageError(
                    f"{cache.path} has no column {unknown[0]!r}; it has {', '.join([*TENSORS, *table.column_names])}"
                )
            self._table = table.select(names).combine_chunks()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> Any:
        """Tensors that an item doesn't have are None."""
        if self.columns is None:
            return self.cache[self.ids[number]]
        values: dict[str, Any] = {}
        if any(name in TENSORS for name in self.columns):
            values.update(self.cache.tensors(self.ids[number]))
        if self._table is not None:
            values.update(self._table.slice(number, 1).to_pylist()[0])
        return {name: values.get(name) for name in self.columns}


class CacheDataset(Dataset[Any]):
    """Map style: a sample for each number."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self.ids: list[str] = samples.ids
        """The items' ids by number."""

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> Any:
        """Raises ``IndexError`` for a number beyond the last."""
        return self._samples[number]


class CacheStream(IterableDataset[Any]):
    """Iterable: every item once in an epoch, over all ranks and over all workers of each."""

    def __init__(
        self,
        samples: Samples,
        shuffle: bool,
        seed: int,
        buffer_size: int,
        rank: int | None,
        world_size: int | None,
        drop_last: bool,
    ) -> None:
        """See ``TokenCache.as_torch_dataset``."""
        if (rank is None) != (world_size is None):
            raise UsageError("give both rank and world_size, or none of them")
        if rank is None or world_size is None:
            together = torch.distributed.is_available() and torch.distributed.is_initialized()
            rank = torch.distributed.get_rank() if together else 0
            world_size = torch.distributed.get_world_size() if together else 1
        if not 0 <= rank < world_size:
            raise UsageError(f"rank must be from 0 to world_size - 1 = {world_size - 1}, got {rank}")
        if buffer_size < 1:
            raise UsageError(f"buffer_size must be at least 1, got {buffer_size}")
        self._samples, self._shuffle, self._seed, self._buffer_size = samples, shuffle, seed, buffer_size
        self._rank, self._world_size, self._drop_last = rank, world_size, drop_last
        # In memory that workers share: those that outlive an epoch must hear of the next one too.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Shuffle otherwise from the next iteration on; all ranks must be told the same."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Items of this rank."""
        return len(self._own())

    def __iter__(self) -> Iterator[Any]:
        own = self._own()
        worker = get_worker_info()
        if worker is not None:
            own = share(own, worker.id, worker.num_workers)
        for number in own.tolist():
            yield self._samples[number]

    def _own(self) -> npt.NDArray[np.int64]:
        order = np.arange(len(self._samples))
        if self._shuffle:
            rng = np.random.default_rng([self._seed, int(self._epoch)])
            order = shuffled(self._samples.shard_sizes, rng, self._buffer_size)
        if self._drop_last:
            order = order[: len(order) // self._world_size * self._world_size]
        return share(order, self._rank, self._world_size)


def share(order: npt.NDArray[np.int64], reader: int, readers: int) -> npt.NDArray[np.int64]:
    """One reader's part: a run, so that most of its items stand in the same shards."""
    return order[len(order) * reader // readers : len(order) * (reader + 1) // readers]


def shuffled(shard_sizes: Sequence[int], rng: np.random.Generator, buffer_size: int) -> npt.NDArray[np.int64]:
    """Numbers of all items: shards in random order, each from a random item on and around, mixed by a buffer."""
    starts = np.cumsum([0, *shard_sizes])
    order = [
        np.roll(np.arange(starts[shard], starts[shard + 1]), -int(rng.integers(shard_sizes[shard])))
        for shard in rng.permutation(len(shard_sizes))
    ]
    numbers = np.concatenate([np.zeros(0, np.int64), *order])
    draws = rng.integers(buffer_size, size=len(numbers))
    # A full buffer gives one of its items away for each that comes; here in place, the buffer being the first numbers.
    buffer, mixed = numbers[:buffer_size].tolist(), []
    for number, draw in zip(numbers[buffer_size:].tolist(), draws.tolist()):
        mixed.append(buffer[draw])
        buffer[draw] = number
    return np.array(mixed + rng.permutation(buffer).tolist(), dtype=np.int64)
