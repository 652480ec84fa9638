"""An item to the rows of the data table: one row for every few megabytes of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tokcli.cache.checksum import row_checksum
from tokcli.cache.codec import Codec
from tokcli.cache.levels import joined
from tokcli.cache.metadata import fitted
from tokcli.cache.records import ErrorRow, clean_path, clean_text
from tokcli.cache.row import Columns, StoredRow
from tokcli.cache.schema import BLOBS, CHECKSUM, META_PREFIX
from tokcli.cache.tensors import array_bytes
from tokcli.errors import UsageError
from tokcli.types import EncodedItem, TokenSet

CHUNK_BYTES = 4 << 20
"""Most bytes of tokens in one row. One row is what a random access reads and what a writer holds twice."""

ROW_LIMIT = 2**31 - 1
"""``source`` and ``assignment`` are int32: an item can have that many source tokens."""

Row = dict[str, Any]


def item_rows(item: EncodedItem, codec: Codec, chunk_bytes: int = CHUNK_BYTES) -> Iterator[Row]:
    """The item's rows in order; each slices and converts its own tokens only.

    Raises ``UsageError`` for what the format cannot hold.
    """
    kept = item.kept
    total, hidden = len(kept), (1 + kept.levels) * int(kept.tokens.shape[1])
    if item.source_tokens > ROW_LIMIT:
        raise UsageError(f"{item.id} has {item.source_tokens} source tokens, a cache takes {ROW_LIMIT}; sample it less")
    parts = row_parts(kept, codec, chunk_bytes)
    common = _columns_of_every_row(item) | {
        "num_chunks": len(parts),
        "kept_tokens": total,
        "hidden_size": hidden,
        "deepstack_levels": kept.levels,
        "dtype": codec.name,
    }
    whole = _columns_of_first_row(item)
    for chunk, part in enumerate(parts):
        yield common | (whole if chunk == 0 else {}) | _blobs(kept, part, codec) | {"chunk": chunk}


def row_parts(kept: TokenSet, codec: Codec, chunk_bytes: int = CHUNK_BYTES) -> list[slice]:
    """Which tokens each row of an item holds; an item without tokens has a row too."""
    step = max(1, chunk_bytes // max(1, codec.num_bytes(1 + kept.levels, int(kept.tokens.shape[1]))))
    return [slice(start, min(len(kept), start + step)) for start in range(0, max(1, len(kept)), step)]


def row_tokens(kept: TokenSet, part: slice, codec: Codec) -> npt.NDArray[np.uint8]:
    """uint8 (n,): those tokens with their levels, which are as many vectors to the codec."""
    deepstack = None if kept.deepstack is None else kept.deepstack[part]
    return codec.encode(joined(kept.tokens[part], deepstack).reshape(-1, kept.tokens.shape[1]))


def error_row(row: ErrorRow) -> Row:
    """The columns of one failed item."""
    return {
        "id": clean_text(row.id),
        "path": clean_path(row.path),
        "stage": clean_text(row.stage),
        "error_class": clean_text(row.error_class),
        "message": clean_text(row.message),
        "attempts": row.attempts,
        "log_tail": clean_text(row.log_tail),
        "source_bytes": row.source_bytes,
        "source_modified_ns": row.source_modified_ns,
    }


def row_bytes(row: Row) -> int:
    """Bytes of the row's blobs, which is nearly all of it."""
    return sum(row[name].nbytes for name in BLOBS if row.get(name) is not None)


def rows_table(rows: list[Row], schema: pa.Schema) -> pa.Table:
    """Rows as one Arrow table, with their checksums; blobs are not copied."""
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    for field in schema:
        values = [row.get(field.name) for row in rows]
        if field.name in BLOBS:
            columns[field.name] = _blob_column(values)
        elif field.name != CHECKSUM:
            columns[field.name] = _small_column(values, field)
    if CHECKSUM in schema.names:
        small = Columns({name: column for name, column in columns.items() if name not in BLOBS})
        sums = [row_checksum(StoredRow(small, number), row.get) for number, row in enumerate(rows)]
        columns[CHECKSUM] = pa.array(sums, pa.int64())
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _small_column(values: list[Any], field: pa.Field) -> pa.Array:
    """A column of values that are Python's, or arrays of one value that come from another shard as they are."""
    if isinstance(values[0], pa.Array):
        return pa.concat_arrays(values)
    if field.name.startswith(META_PREFIX):
        values = [fitted(value, field.type) for value in values]
    return pa.array(values, field.type)


def _columns_of_every_row(item: EncodedItem) -> Row:
    return {
        "id": clean_text(item.id),
        "kind": item.kind,
        "path": clean_path(item.path),
        "source_tokens": item.source_tokens,
        "views": [dict(zip(("kind", "t", "h", "w"), (view.kind, *view.grid))) for view in item.views],
        "frame_height": item.frame_size[0],
        "frame_width": item.frame_size[1],
        "source_height": item.source_size[0],
        "source_width": item.source_size[1],
        "duration_seconds": item.duration_seconds,
        "source_fps": item.source_fps,
        "sample_fps": item.sample_fps,
        "seconds_per_step": item.seconds_per_step,
        "codec": clean_text(item.codec),
        "decoder": clean_text(item.decoder),
        "source_bytes": item.source_bytes,
        "source_modified_ns": item.source_modified_ns,
        "source_blake3": item.source_hash,
        "bad_packets": item.bad_packets,
        "corrupt_frames": item.corrupt_frames,
        **{META_PREFIX + name: value for name, value in item.metadata.items()},
    }


def _columns_of_first_row(item: EncodedItem) -> Row:
    assignment = item.kept.assignment
    return {
        "times": np.asarray(item.times, np.float64),
        "indices": np.asarray(item.indices, np.int64),
        "stats": [_stat(item.id, name, np.asarray(values)) for name, values in item.kept.stats.items()],
        "assignment": None if assignment is None else array_bytes(assignment.cpu(), "int32"),
    }


def _stat(item_id: str, name: str, values: npt.NDArray[Any]) -> dict[str, Any]:
    """One array of statistics as doubles; the dtype beside it restores it exactly."""
    doubles = values.astype(np.float64)
    if values.dtype.kind not in "fiub" or not np.array_equal(
        doubles.astype(values.dtype), values, equal_nan=values.dtype.kind == "f"
    ):
        raise UsageError(f"stat {name!r} of {item_id} ({values.dtype}) does not fit in doubles; store a smaller type")
    return {"name": name, "dtype": values.dtype.name, "values": np.atleast_1d(doubles)}


def _blobs(kept: TokenSet, part: slice, codec: Codec) -> Row:
    mass = array_bytes(kept.mass[part].detach().cpu(), "float32")
    return {
        "num_tokens": part.stop - part.start,
        "tokens": row_tokens(kept, part, codec),
        "coords": array_bytes(kept.coords[part].cpu(), "int32"),
        "source": array_bytes(kept.source[part].cpu(), "int32"),
        "mass": None if bool((kept.mass[part] == 1).all()) else mass,
    }


def _blob_column(values: list[npt.NDArray[np.uint8] | None]) -> pa.ChunkedArray:
    """A binary column that refers to the arrays' own memory."""
    return pa.chunked_array([_blob(value) for value in values], pa.binary())


def _blob(value: npt.NDArray[np.uint8] | None) -> pa.Array:
    if value is None:
        return pa.nulls(1, pa.binary())
    offsets = np.array([0, value.nbytes], np.int32)
    return pa.Array.from_buffers(pa.binary(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(value)])
