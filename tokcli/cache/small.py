"""The small columns of a shard, a row group at a time: read for several at once where that pays."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pyarrow.parquet as pq

from tokcli.cache.parquet import DAMAGE, columns_of
from tokcli.cache.row import Columns

WINDOW_BYTES = 1 << 20
"""Of a shard's small columns read ahead at a time."""

HELD_BYTES = 64 << 20
"""Of the small columns of all shards of a cache held at a time: those of 200,000 items or so."""

READS = 8
"""Row groups read one by one cost what this many cost that are read together."""


class SmallColumns:
    """Columns ``names`` of an open shard, whose row groups begin at the rows ``starts``, the last of which is its end.

    Thirty columns take a quarter of a millisecond to read of one row group. For who goes through a shard in order more
    and more are read ahead; of a shard that was asked for many at random all are read and held, where they are few.
    """

    def __init__(
        self, file: pq.ParquetFile, names: Sequence[str], starts: Sequence[int], held_bytes: int = HELD_BYTES
    ) -> None:
        """``held_bytes`` is what may be held of the columns of a shard that is read at random."""
        self._held_bytes = held_bytes
        self._file, self._names, self._starts = file, list(names), starts
        self._groups = len(starts) - 1
        self._held: tuple[range, Columns, int] | None = None
        """Row groups that were read, their columns, and how many bytes these take."""
        self._width, self._reads = 1, 0

    def group(self, number: int) -> tuple[Columns, int]:
        """Those of one row group among others, and the row at which it begins.

        Raises what pyarrow does where they are damaged.
        """
        if self._held is None or number not in self._held[0]:
            wanted = self._wanted(number)
            # Of damage in others it is told when they are asked for.
            with contextlib.suppress(*DAMAGE) if len(wanted) > 1 else contextlib.nullcontext():
                self._held = self._read(wanted)
        if self._held is None:
            self._held = self._read(range(number, number + 1))
        groups, columns, _ = self._held
        return columns, self._starts[number] - self._starts[groups.start]

    def _wanted(self, number: int) -> range:
        self._reads += 1
        if self._held is None:
            return range(number, number + 1)
        groups, _, num_bytes = self._held
        most, ahead = (max(1, held * len(groups) // max(1, num_bytes)) for held in (self._held_bytes, WINDOW_BYTES))
        if number == groups.stop:
            self._width = min(2 * self._width, ahead)
        elif self._reads * READS >= self._groups and self._groups <= most:
            return range(self._groups)
        else:
            self._width = 1
        return range(number, min(number + self._width, self._groups))

    def _read(self, groups: range) -> tuple[range, Columns, int]:
        self._held = None
        table = self._file.read_row_groups(list(groups), columns=self._names, use_threads=False)
        return groups, columns_of(table), table.nbytes
