"""Opening committed shards, with every doubt turned into an ``IntegrityError`` that names the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3

from tokcli.cache.layout import Shard
from tokcli.cache.manifest import FORMAT, Manifest
from tokcli.cache.remote_parquet import RemoteParquet
from tokcli.cache.row import Columns
from tokcli.cache.schema import column_types
from tokcli.errors import CacheError, IntegrityError
from tokcli.storage import Location, RemotePath
from tokcli.storage.ranges import last_bytes

LIKELY_FOOTER_BYTES = 128 << 10
"""Read of a shard's end at once: the footer of a shard of 50 row groups takes about as much."""


DAMAGE = (OSError, pa.ArrowException, ValueError, MemoryError, OverflowError)
"""What bytes that are not what was written surface as: Arrow's errors, text that is not UTF-8, absurd lengths."""


class ShardGoneError(CacheError):
    """A shard that was there when the folder was listed: it was rewritten, or lost."""


def way_out(shard: Location) -> str:
    """What to do about a damaged shard."""
    return f"`tokcli repair {shard.parent.parent}` takes it out and names the command that redoes its items"


@contextlib.contextmanager
def reading(path: Location, what: str = "") -> Iterator[None]:
    """Name the file, and ``what`` was read from it, when Arrow or the system fails inside."""
    try:
        yield
    except FileNotFoundError:
        raise ShardGoneError(f"{path} is gone; it was there when the cache was opened: open the cache again") from None
    except PermissionError as error:
        raise CacheError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    except DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise IntegrityError(
            f"{path} is damaged{f', reading {what}' if what else ''} ({reason}); {way_out(path)}"
        ) from error


def open_shard(shard: Shard, manifest: Manifest) -> pq.ParquetFile:
    """Open one shard, check its footer against its name and that it belongs to the cache.

    Pages are checked against their checksums when they are read. No threads are used in reading: data loaders fork.
    """
    with reading(shard.path):
        metadata = pq.read_metadata(pa.BufferReader(b"PAR1" + _checked_footer(shard)))
        file = parquet_file(shard.path, metadata, checked=True)
        stamp = metadata.metadata or {}
        schema = file.schema_arrow
    version = stamp.get(b"tokcli.format", b"")
    if not version.isdigit():
        raise IntegrityError(f"{shard.path} was not written by tokcli; move it out of the cache")
    if int(version) > FORMAT:
        raise CacheError(f"{shard.path} has cache format {int(version)}, this tokcli reads up to {FORMAT}: upgrade it")
    if stamp.get(b"tokcli.configuration") != manifest.digest.encode():
        raise IntegrityError(
            f"{shard.path} was written with another configuration than the cache's manifest tells; "
            "move it out of the cache, and run the compress command again"
        )
    for field in column_types(shard.table):
        if field.name not in schema.names or schema.field(field.name).type != field.type:
            raise IntegrityError(f"{shard.path} has no column {field.name} of type {field.type}; {way_out(shard.path)}")
    return file


def parquet_file(
    path: Location, metadata: pq.FileMetaData, *, checked: bool, like: pq.ParquetFile | None = None
) -> pq.ParquetFile:
    """A shard with its footer, to read it with its pages ``checked`` or not; ``like`` is the same shard, open."""
    if isinstance(path, RemotePath):
        return RemoteParquet(path, metadata, checked, like)
    return pq.ParquetFile(path, metadata=metadata, page_checksum_verification=checked, pre_buffer=False)


def footer_length(tail: bytes) -> int:
    """Length of a Parquet footer with its own length and the magic number, told by the file's last 8 bytes."""
    return int.from_bytes(tail[:4], "little") + 8


def _checked_footer(shard: Shard) -> bytes:
    """The footer with its length behind it, by one request of an object, unless it is longer than it mostly is."""
    end, size = last_bytes(shard.path, LIKELY_FOOTER_BYTES)
    length = footer_length(end[-8:])
    if length > size:
        raise ValueError(f"a footer of {length} bytes in a file of {size}")
    if length > len(end):
        end, _ = last_bytes(shard.path, length)
    footer = end[-length:]
    if blake3(footer).hexdigest(length=4) != shard.digest:
        raise ValueError("the footer is not the one that was written")
    return footer


def read_columns(shard: Shard, file: pq.ParquetFile, columns: list[str]) -> pa.Table:
    """Whole columns of a shard, checked."""
    with reading(shard.path, "its index"):
        return file.read(columns=columns, use_threads=False)


def columns_of(table: pa.Table) -> Columns:
    """A row group's columns, each as one array, which is how they come unless a column exceeds 2 GiB."""
    return Columns(
        {
            name: column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
            for name, column in zip(table.column_names, table.columns)
        }
    )
