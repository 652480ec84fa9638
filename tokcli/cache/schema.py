"""The columns of the two tables and how they are stored; ``SPEC.md`` says what each means.

Small columns come first and blobs last, so that a reader of metadata touches the head of a row group only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tokcli import __version__
from tokcli.cache.layout import Table
from tokcli.cache.levels import levels_of
from tokcli.cache.manifest import FORMAT, Manifest

META_PREFIX = "meta_"
"""Columns carried over from the user's own manifest."""

PAGES_DIGEST = "tokcli.pages"
"""Key of the footer's metadata under which the blake3 of all bytes before the footer stands."""

BLOBS = ("assignment", "mass", "source", "coords", "tokens")
WHOLE_ITEM = ("times", "indices", "stats", "assignment")
"""Filled in the row with chunk 0 only, null in the others: their size grows with the item, not with the row."""

_VIEW = pa.struct(
    [pa.field(name, kind, nullable=False) for name, kind in (("kind", pa.string()), *((k, pa.int32()) for k in "thw"))]
)
_STAT = pa.struct(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("values", pa.list_(pa.float64()), nullable=False),
    ]
)

_REQUIRED: dict[str, pa.DataType] = {
    "id": pa.string(),
    "chunk": pa.int32(),
    "num_chunks": pa.int32(),
    "sequence": pa.int64(),
    "kind": pa.string(),
    "path": pa.string(),
    "num_tokens": pa.int32(),
    "kept_tokens": pa.int64(),
    "source_tokens": pa.int64(),
    "hidden_size": pa.int32(),
    "dtype": pa.string(),
    "views": pa.list_(_VIEW),
    "frame_height": pa.int32(),
    "frame_width": pa.int32(),
    "source_height": pa.int32(),
    "source_width": pa.int32(),
    "duration_seconds": pa.float64(),
    "codec": pa.string(),
    "decoder": pa.string(),
    "source_bytes": pa.int64(),
    "source_modified_ns": pa.int64(),
    "source_blake3": pa.string(),
    "bad_packets": pa.int32(),
    "corrupt_frames": pa.int32(),
    "configuration": pa.string(),
}
_OPTIONAL: dict[str, pa.DataType] = {
    "source_fps": pa.float64(),
    "sample_fps": pa.float64(),
    "seconds_per_step": pa.float64(),
    "times": pa.list_(pa.float64()),
    "indices": pa.list_(pa.int64()),
    "stats": pa.list_(_STAT),
}
CHECKSUM = "row_crc32"
"""Column of each row's own checksum. Readers of before there was one ignore it; shards of then don't have it."""

CHECKED = (
    *(name for name in _REQUIRED if name != "sequence"),
    "deepstack_levels",
    *("source_fps", "sample_fps", "seconds_per_step"),
)
"""Small columns that the checksum covers, where they are."""

_BLOB_REQUIRED = {"assignment": False, "mass": False, "source": True, "coords": True, "tokens": True}

_ERROR: dict[str, pa.DataType] = {
    "id": pa.string(),
    "sequence": pa.int64(),
    "path": pa.string(),
    "stage": pa.string(),
    "error_class": pa.string(),
    "message": pa.string(),
    "attempts": pa.int32(),
    "log_tail": pa.string(),
    "source_bytes": pa.int64(),
    "source_modified_ns": pa.int64(),
    "configuration": pa.string(),
}

# Low-cardinality strings only. On a blob column the dictionary makes writing ten times slower.
_DICTIONARY = ["kind", "codec", "decoder", "dtype", "configuration", "stage", "error_class"]
_LISTS = ("views", "times", "indices", "stats")


def column_types(
    table: Table, metadata: Mapping[str, pa.DataType] | None = None, *, levels: int = 0, checksum: bool = False
) -> pa.Schema:
    """Columns of a table; ``metadata`` maps the user's column names (without prefix) to their types.

    Only caches of tokens with DeepStack levels tell how many: all others stay as they were before there were any.
    With ``checksum`` as it is written, without as every shard of format 1 has it at least.
    """
    if table == "errors":
        return pa.schema([pa.field(name, kind, nullable=False) for name, kind in _ERROR.items()])
    required = _REQUIRED | ({"deepstack_levels": pa.int32()} if levels else {})
    required |= {CHECKSUM: pa.int64()} if checksum else {}
    fields = [pa.field(name, kind, nullable=False) for name, kind in required.items()]
    fields += [pa.field(META_PREFIX + name, kind) for name, kind in (metadata or {}).items()]
    fields += [pa.field(name, kind) for name, kind in _OPTIONAL.items()]
    fields += [pa.field(name, pa.binary(), nullable=not required) for name, required in _BLOB_REQUIRED.items()]
    return pa.schema(fields)


def shard_schema(table: Table, manifest: Manifest, metadata: Mapping[str, pa.DataType] | None = None) -> pa.Schema:
    """The columns of a shard, stamped with what refuses one that was copied in from another cache."""
    stamp = {
        "tokcli.format": str(FORMAT),
        "tokcli.version": __version__,
        "tokcli.configuration": manifest.digest,
    }
    return column_types(table, metadata, levels=levels_of(manifest), checksum=True).with_metadata(stamp)


def writer_options(schema: pa.Schema) -> dict[str, Any]:
    """Arguments of ``pyarrow.parquet.ParquetWriter``."""
    plain = [name for name in schema.names if name not in BLOBS and name not in _LISTS]
    return {
        "compression": "none",  # zstd gains 8% on tokens and costs more than half of the reading speed
        "use_dictionary": [name for name in _DICTIONARY if name in schema.names],
        "write_statistics": plain,
        "write_page_checksum": True,
        "data_page_size": 64 << 20,  # more than a row group has: a column is one page, whose values lie in a row
        "write_page_index": False,
    }
