"""Writing a cache: items go into a shard that appears whole, and the committed shards are the only state."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from tokcli.cache.codebook import Codebook
from tokcli.cache.codecs import cache_codec, codec_of
from tokcli.cache.encode import CHUNK_BYTES, error_row, item_rows
from tokcli.cache.faults import fault_point
from tokcli.cache.folder import make_folder, prepare
from tokcli.cache.layout import Table, list_shards
from tokcli.cache.levels import check_levels, levels_of
from tokcli.cache.manifest import Manifest
from tokcli.cache.metadata import widened
from tokcli.cache.part import Part
from tokcli.cache.part_finish import finish_part
from tokcli.cache.prune import prune_items
from tokcli.cache.records import ErrorRow, clean_text
from tokcli.cache.schema import shard_schema
from tokcli.cache.shard import ShardWriter
from tokcli.cache.state import Known, Status, counts_of, load_state
from tokcli.cache.success import write_success
from tokcli.cache.tensors import check_range
from tokcli.cache.unlocked import AnyPartLock, lock_of
from tokcli.errors import CacheError
from tokcli.storage import RemotePath, location
from tokcli.types import EncodedItem, MediaItem

SHARD_BYTES = 512 << 20
"""Large enough that a dataset is hundreds of files, small enough to copy, upload and lose one."""
SHARD_ITEMS = 10_000
SHARD_SECONDS = 60.0
"""What a killed run loses at most, besides the item in work."""


class CacheWriter:
    """The one writer of a cache, or of one of its parts; a context manager.

    Opening it takes the cache's lock, checks the configuration, and removes what killed writers left. A shard is
    committed when it reaches one of the limits (checked after each item), on ``commit``, and on leaving the context;
    leaving commits whole items only, also on an exception.

    Raises ``CacheLockedError`` when another process writes, ``CacheConflictError`` when the cache was made with
    another configuration, ``UsageError`` when the folder holds something else, ``IntegrityError`` when a committed
    shard cannot be read, ``CacheError`` when the disk refuses.
    """

    def __init__(
        self,
        path: str | Path | RemotePath,
        manifest: Manifest,
        *,
        overwrite: bool = False,
        tokens_dtype: str | None = None,
        codebook: Codebook | None = None,
        part: Part | None = None,
        max_shard_bytes: int = SHARD_BYTES,
        max_shard_items: int = SHARD_ITEMS,
        max_shard_seconds: float = SHARD_SECONDS,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.path = location(path)
        self._codec = codec_of(tokens_dtype or str(manifest.configuration.get("tokens_dtype", "float16")), codebook)
        if manifest.configuration.get("tokens_dtype", self._codec.name) != self._codec.name:
            raise ValueError(f"tokens_dtype is {self._codec.name}, the manifest tells {manifest.configuration}")
        self._limits = (max_shard_bytes, max_shard_items, max_shard_seconds)
        self._chunk_bytes = chunk_bytes
        self._levels = levels_of(manifest)
        self._shard: ShardWriter | None = None
        self._metadata_types: dict[str, pa.DataType] = {}
        self._written: dict[str, Known] = {}
        self._failures: dict[str, ErrorRow] = {}
        self._began = time.monotonic()
        self._broken = False
        self._part = part
        if part is not None and overwrite:
            raise ValueError("a part cannot replace the cache that others write to")
        make_folder(self.path)
        self._lock = lock_of(self.path, part)
        try:
            self.manifest = prepare(self.path, manifest, overwrite=overwrite, part=part)
            if codebook is not None:
                codebook.save(self.path)
            self._codec = cache_codec(self.path, self.manifest) or self._codec
            if isinstance(self._lock, AnyPartLock):
                self._lock.opened()
            self._state, self._sequence = load_state(self.path, self.manifest, part)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def counts(self) -> dict[str, int]:
        """``items`` and ``failed`` of the cache, or of the part, with what is not committed yet."""
        return counts_of(self._merged())

    def state(self, item: MediaItem, source_hash: Callable[[], str]) -> Status:
        """Whether the cache has ``item`` as it is on disk now.

        ``source_hash`` gives the blake3 of its content, and is called only where size and modification time leave a
        doubt. "failed": it failed before and the file is the same; "changed": there is a row, of another content.
        """
        item_id = clean_text(item.id)
        if item_id in self._failures:
            return "failed"
        known = self._written.get(item_id) or self._state.get(item_id)
        return known.compared(item, source_hash) if known else "new"

    def is_committed(self, item_id: str) -> bool:
        """Whether nothing of an id waits for the next commit."""
        item_id = clean_text(item_id)
        return item_id not in self._written and item_id not in self._failures

    def write(self, item: EncodedItem) -> None:
        """Add one item; it supersedes every earlier row of its id.

        Raises ``UsageError`` for an item that the format cannot hold (the shard stays good: go on with the next), and
        ``CacheError`` when the disk refuses: then nothing since the last commit is kept, and the writer is done.
        """
        self._check_usable()
        item_id = self._own_id(item.id)
        check_levels(item.kept, self._levels, item_id)
        for tokens in (item.kept.tokens, item.kept.deepstack):
            if tokens is not None:
                check_range(tokens, self._codec.dtype, item_id)
        rows = item_rows(item, self._codec, self._chunk_bytes)
        row = next(rows)  # raises what it has against the item before a row of it is in the shard
        types = widened(self._metadata_types, item.metadata)
        if item_id in self._written or (self._shard is not None and types != self._metadata_types):
            self.commit()
        self._metadata_types = types
        self._failures.pop(item_id, None)
        self._broken = True  # until the last row is in: an interrupt between rows must not commit half an item
        if self._shard is None:
            self._shard = self._new_shard("data")
        self._shard.add(row)
        for row in rows:
            self._shard.add(row)
        self._broken = False
        self._written[item_id] = Known("done", item.source_bytes, item.source_modified_ns, item.source_hash)
        self._commit_when_due()

    def fail(self, row: ErrorRow) -> None:
        """Add a failed item to the errors table; it supersedes every earlier row of its id."""
        self._check_usable()
        item_id = self._own_id(row.id)
        if item_id in self._written:
            self.commit()
        self._failures[item_id] = row
        self._commit_when_due()

    def commit(self) -> None:
        """Make all that was added durable. Raises ``CacheError`` when the disk refuses; the writer is done then."""
        self._check_usable()
        self._broken = True
        if self._shard is not None:
            self._shard.commit()
            self._shard = None
            self._state |= self._written
            self._written = {}
        if self._failures:
            fault_point("commit.between_tables")
            self._commit_failures()
        self._broken = False
        self._began = time.monotonic()

    def others(self, expected_ids: Iterable[str]) -> list[str]:
        """Ids that the cache has, finished or failed, and that are not among these: their inputs are gone."""
        expected = {clean_text(item_id) for item_id in expected_ids}
        return [item_id for item_id in self._merged() if item_id not in expected]

    def prune(self, ids: Collection[str]) -> None:
        """Take items and failures out of the cache, and their superseded rows; durable when it returns.

        Raises ``CacheError`` when the disk refuses, ``IntegrityError`` for a damaged row beside them.
        """
        self.commit()
        self._broken = True
        limits = self._limits[:2]
        self._sequence = prune_items(self.path, self.manifest, ids, list_shards(self.path), self._sequence, *limits)
        for item_id in ids:
            self._state.pop(item_id, None)
        self._broken = False

    def finish(self, expected_ids: Iterable[str]) -> list[str]:
        """Commit, and write ``_SUCCESS`` if every expected id is in the cache or in its errors.

        Returns the ids that are in neither, in the order given: empty when the cache is complete.

        The writer of a part is done with it, and is to be given the ids of all parts: the one that ends last writes the
        mark, the others return what others have not committed yet.
        """
        self.commit()
        if isinstance(self._lock, AnyPartLock):
            self._broken = True
            return finish_part(self.path, self.manifest, self._lock, list(expected_ids))
        missing = [item_id for item_id in expected_ids if clean_text(item_id) not in self._state]
        if not missing:
            write_success(self.path, self.counts())
        return missing

    def close(self) -> None:
        """Commit whole items, drop half ones, and give the lock back. Safe to call again."""
        try:
            if self._lock.is_locked and not self._broken:
                self.commit()
        finally:
            if self._shard is not None:
                self._shard.abort()
                self._shard = None
            self._broken = True
            self._lock.release()

    def _merged(self) -> dict[str, Known]:
        failed = {item_id: Known("failed", 0, 0, "") for item_id in self._failures}
        return self._state | self._written | failed

    def _own_id(self, given: str) -> str:
        item_id = clean_text(given)
        if self._part is not None and not self._part.has(item_id):
            raise ValueError(f"{item_id} does not belong to part {self._part}")
        return item_id

    def _check_usable(self) -> None:
        if self._broken:
            raise CacheError(f"the writer of {self.path} is closed or has failed; open the cache again to go on")

    def _new_shard(self, table: Table) -> ShardWriter:
        schema = shard_schema(table, self.manifest, self._metadata_types)
        tag = ""
        if self._part is not None:
            self._sequence, tag = self._part.next_sequence(self._sequence), self._part.tag
        shard = ShardWriter(self.path / table, schema, self._sequence, tag)
        self._sequence += 1
        return shard

    def _commit_failures(self) -> None:
        shard = self._new_shard("errors")
        for row in self._failures.values():
            shard.add(error_row(row))
        shard.commit()
        for item_id, row in self._failures.items():
            self._state[item_id] = Known("failed", row.source_bytes, row.source_modified_ns, "")
        self._failures = {}

    def _commit_when_due(self) -> None:
        num_bytes, num_items, seconds = self._limits
        if (
            (self._shard is not None and self._shard.num_bytes >= num_bytes)
            or len(self._written) + len(self._failures) >= num_items
            or time.monotonic() - self._began >= seconds
        ):
            self.commit()
