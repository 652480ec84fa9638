"""One shard that is being written: rows go in, and it appears under its name or never."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3

from tokcli.cache.atomic import publish, temporary_path, writing
from tokcli.cache.encode import Row, row_bytes, rows_table
from tokcli.cache.faults import fault_point
from tokcli.cache.layout import shard_name
from tokcli.cache.schema import BLOBS, PAGES_DIGEST, writer_options
from tokcli.storage import Location

ROW_GROUP_BYTES = 4 << 20
"""A row group's small columns cost a quarter of a millisecond to read and half of one to write, whatever is in it."""

ROW_GROUP_ROWS = 128
"""Bounds what a random access to a tiny item reads beside it."""


class ShardWriter:
    """Writes rows to a temporary file in ``folder``. Not usable after ``commit`` or ``abort``.

    Every method raises ``CacheError`` when the disk refuses, and then leaves no file behind.
    """

    def __init__(self, folder: Location, schema: pa.Schema, sequence: int, tag: str = "") -> None:
        """``tag`` goes into the name of the temporary file: whose it is, of several that write at once."""
        self.schema = schema
        self.num_bytes = 0
        self._constants = {"sequence": sequence, "configuration": schema.metadata[b"tokcli.configuration"].decode()}
        self._folder, self._sequence = folder, sequence
        fault_point("shard.before_temporary")
        self._temporary = temporary_path(folder, tag)
        self._rows: list[Row] = []
        self._buffered_bytes = 0
        with writing(folder):
            self._sink = _HashingFile(self._temporary)
            try:
                self._parquet = pq.ParquetWriter(self._sink, schema, **writer_options(schema))
            except BaseException:
                self._sink.close()
                self._temporary.unlink(missing_ok=True)
                raise

    def add(self, row: Row) -> None:
        """Add one row; written out as soon as a row group is full."""
        size = row_bytes(row)
        if self._rows and self._buffered_bytes + size > ROW_GROUP_BYTES:
            self._flush()
        self._rows.append(row | self._constants)
        self._buffered_bytes += size
        self.num_bytes += size
        if self._buffered_bytes >= ROW_GROUP_BYTES or len(self._rows) >= ROW_GROUP_ROWS:
            self._flush()
        else:
            # The rest of the row group may be long in coming: don't hold views of tensors that others own.
            self._rows[-1] |= {name: row[name].copy() for name in BLOBS if row.get(name) is not None}

    def commit(self) -> Location:
        """Write what is buffered, sync, and give the shard its name."""
        self._flush()
        try:
            with writing(self._folder):
                self._parquet.add_key_value_metadata({PAGES_DIGEST: self._sink.take_digest()})
                self._parquet.close()
                fault_point("shard.before_fsync")
                self._sink.sync()
                self._sink.close()
                final = self._folder / shard_name(self._sequence, self._sink.take_digest()[:8])
                publish(self._temporary, final, "shard")
                fault_point("shard.after_folder_fsync")
        except BaseException:
            self.abort()
            raise
        return final

    def abort(self) -> None:
        """Drop the shard."""
        # Closing writes a footer into a file that is thrown away; on a full disk that fails once more.
        with contextlib.suppress(Exception):
            self._parquet.close()
        self._parquet.is_open = False
        with contextlib.suppress(OSError):
            self._sink.close()
        self._temporary.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._rows:
            return
        try:
            table = rows_table(self._rows, self.schema)
            with writing(self._folder):
                self._parquet.write_table(table, row_group_size=len(table))
            fault_point("shard.after_pages")
        except BaseException:
            self.abort()
            raise
        self._rows, self._buffered_bytes = [], 0


class _HashingFile:
    """A file for writing that hashes what goes through it; what pyarrow asks of a file object, no more."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("xb", buffering=4 << 20)
        self._hash = blake3()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def take_digest(self) -> str:
        """The digest of what was written since it was last asked for."""
        digest, self._hash = self._hash.hexdigest(), blake3()
        return digest

    def write(self, data: Any) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
