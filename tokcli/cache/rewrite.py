"""Moving stored rows into new shards, as they are: what compacting, pruning and merging have in common.

Old shards vanish only after all that is still valid in them stands in new ones, oldest first: at every moment the
newest row of an id is the one that was valid before, and an id that is to go never comes back by an older row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tokcli.cache.atomic import sync_folder, writing
from tokcli.cache.checksum import checksum_problem
from tokcli.cache.encode import Row
from tokcli.cache.faults import fault_point
from tokcli.cache.index import Index, Place
from tokcli.cache.layout import Shard, Table
from tokcli.cache.manifest import Manifest
from tokcli.cache.metadata import aligned, wider_type
from tokcli.cache.parquet import columns_of, open_shard, reading
from tokcli.cache.row import Columns, StoredRow
from tokcli.cache.schema import BLOBS, CHECKSUM, META_PREFIX, shard_schema
from tokcli.cache.shard import ShardWriter
from tokcli.errors import CacheError, IntegrityError
from tokcli.storage import Location

_OWN = ("sequence", "configuration", CHECKSUM)
"""What the new shard says for itself."""


class Rewriter:
    """Writes rows of other shards into new shards of ``cache``, whose lock the caller holds.

    ``commit`` makes what was moved durable; ``abort`` drops the rest. Both are safe to call when there is nothing.
    """

    def __init__(
        self,
        cache: Location,
        manifest: Manifest,
        sequence: int,
        types: Mapping[str, pa.DataType],
        max_bytes: int,
        max_items: int,
    ) -> None:
        """``sequence`` is the first free one; ``types`` are those of all users' columns, without prefix."""
        self.sequence = sequence
        self.shards: list[Location] = []
        """Committed so far."""
        self._cache, self._manifest, self._types = cache, manifest, dict(types)
        self._limits = (max_bytes, max_items)
        self._open: dict[Table, ShardWriter] = {}
        self._items = 0

    @property
    def full(self) -> bool:
        num_bytes, num_items = self._limits
        return self._items >= num_items or any(shard.num_bytes >= num_bytes for shard in self._open.values())

    def take(self, shard: Shard, manifest: Manifest, places: Iterable[Place]) -> Iterator[None]:
        """Move these rows of a shard, pausing behind each item, where ``commit`` may be called.

        Raises ``IntegrityError`` for rows that are not what was written, ``CacheError`` when the disk refuses.
        """
        with open_shard(shard, manifest) as file:
            self._check_columns(shard, file)
            groups = _Groups(shard, file, self._types)
            for place in sorted(places, key=lambda place: place.first):
                for number in range(place.first, place.first + place.count):
                    self._writer(shard.table).add(groups.row(number))
                self._items += 1
                yield

    def commit(self) -> None:
        for table in sorted(self._open):
            self.shards.append(self._open[table].commit())
            del self._open[table]
        self._items = 0

    def abort(self) -> None:
        for shard in self._open.values():
            shard.abort()
        self._open = {}

    def _check_columns(self, shard: Shard, file: pq.ParquetFile) -> None:
        known = {*shard_schema(shard.table, self._manifest, self._types).names, CHECKSUM}
        if unknown := [name for name in file.schema_arrow.names if name not in known]:
            raise CacheError(
                f"{shard.path} has a column {unknown[0]!r} that this tokcli does not know and would lose: "
                "upgrade tokcli"
            )

    def _writer(self, table: Table) -> ShardWriter:
        if table not in self._open:
            schema = shard_schema(table, self._manifest, self._types)
            self._open[table] = ShardWriter(self._cache / table, schema, self.sequence)
            self.sequence += 1
        return self._open[table]


class _Groups:
    """Rows of one shard by number, one row group at a time."""

    def __init__(self, shard: Shard, file: pq.ParquetFile, types: Mapping[str, pa.DataType]) -> None:
        self._shard, self._file, self._types = shard, file, types
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._group = -1
        self._columns = Columns({})

    def row(self, number: int) -> Row:
        """The row's columns as arrays of one value, blobs as bytes; checked."""
        group = int(np.searchsorted(self._starts, number, "right")) - 1
        if group != self._group:
            with reading(self._shard.path, f"row group {group}"):
                table = self._file.read_row_group(group, use_threads=False)
            self._group, self._columns = group, columns_of(table)
            if self._shard.table == "data":
                users = {META_PREFIX + name: kind for name, kind in self._types.items()}
                self._columns = Columns({**self._columns, **columns_of(aligned(table, users))})
        place = number - int(self._starts[group])
        if self._shard.table == "data":
            self._check(StoredRow(self._columns, place))
        row: dict[str, Any] = {}
        for name, column in self._columns.items():
            if name in BLOBS:
                blob = self._columns.blob(name, place)
                row[name] = None if blob is None else np.frombuffer(blob, np.uint8)
            elif name not in _OWN:
                row[name] = column.slice(place, 1)
        return row

    def _check(self, row: StoredRow) -> None:
        if problem := row.lengths_problem() or checksum_problem(row):
            raise IntegrityError(
                f"{self._shard.path} is damaged: row {row['chunk']} of {row['id']}: {problem}; "
                "`tokcli repair` takes it out of the cache and says what to do again"
            )


def next_sequence(shards: Sequence[Shard]) -> int:
    """The number of the next commit."""
    return shards[-1].sequence + 1 if shards else 1


def metadata_types(shards: Iterable[tuple[Shard, Manifest]]) -> dict[str, pa.DataType]:
    """The users' columns in any of the shards, given with their manifests, each of a type that holds all values."""
    types: dict[str, pa.DataType] = {}
    for shard, manifest in shards:
        if shard.table == "data":
            with open_shard(shard, manifest) as file:
                for field in file.schema_arrow:
                    if field.name.startswith(META_PREFIX):
                        name = field.name.removeprefix(META_PREFIX)
                        types[name] = wider_type(types.get(name, field.type), field.type)
    return types


def replace_shards(
    index: Index, manifest: Manifest, old: Sequence[Shard], rewriter: Rewriter, drop: Collection[str] = ()
) -> None:
    """Move what is valid in ``old`` into new shards, but for the ids in ``drop``, and delete ``old``.

    ``old`` must be in the order of commits, and must hold every shard with a row, valid or not, of an id in ``drop``.
    """
    places: dict[Shard, list[Place]] = {shard: [] for shard in old}
    for item_id, place in (*index.items.items(), *index.failed.items()):
        shard = index.shards[place.shard]
        if shard in places and item_id not in drop:
            places[shard].append(place)
    moved: list[Shard] = []
    try:
        for shard in old:
            for _ in rewriter.take(shard, manifest, places[shard]):
                if rewriter.full:
                    rewriter.commit()
                    _delete(moved)
            moved.append(shard)
        rewriter.commit()
        _delete(moved)
    finally:
        rewriter.abort()


def _delete(shards: list[Shard]) -> None:
    """Remove shards, oldest first, and forget them."""
    for shard in shards:
        fault_point("rewrite.before_deletion")
        with writing(shard.path.parent):
            shard.path.unlink()
        fault_point("rewrite.after_deletion")
        sync_folder(shard.path.parent)  # one by one: a power cut must not keep an older shard and lose a newer one
    shards.clear()
