"""What items would be in a shard, without writing one: how many bytes, and which tokens reading gives back.

The encoder's own rows go through Parquet into a sink that only counts. What an item adds to a row group is measured
apart from what a row group costs by itself, because small items share one; so sizes of items can be added up for any
set of them, and come out as if that set had been written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from tokcli.cache.codec import Codec
from tokcli.cache.codecs import codec_of
from tokcli.cache.encode import CHUNK_BYTES, Row, item_rows, row_bytes, row_parts, row_tokens, rows_table
from tokcli.cache.levels import parted
from tokcli.cache.manifest import Manifest
from tokcli.cache.metadata import widened
from tokcli.cache.schema import shard_schema, writer_options
from tokcli.cache.shard import ROW_GROUP_BYTES, ROW_GROUP_ROWS
from tokcli.types import EncodedItem


@dataclass(frozen=True)
class StoredSize:
    """What one item takes."""

    payload_bytes: int
    """In row groups that are there anyway."""
    row_bytes: tuple[int, ...]
    """Of the blobs of each of its rows: what decides when a row group is full."""
    group_bytes: int
    """What one more row group costs, whatever is in it."""


def read_back(item: EncodedItem, codec: Codec, chunk_bytes: int = CHUNK_BYTES) -> EncodedItem:
    """The item with its tokens, and their levels, as they come out of a cache of that codec.

    Raises ``UsageError`` for numbers that the codec cannot hold.
    """
    import torch

    kept = item.kept
    width = int(kept.tokens.shape[1])
    stored = replace(
        kept,
        tokens=kept.tokens.to(getattr(torch, codec.dtype)),
        deepstack=None if kept.deepstack is None else kept.deepstack.to(getattr(torch, codec.dtype)),
    )
    if codec.lossy:
        rows = [row_tokens(stored, part, codec) for part in row_parts(stored, codec, chunk_bytes)]
        vectors = torch.cat([codec.decode(pa.py_buffer(row), width) for row in rows])
        tokens, deepstack = parted(vectors.reshape(len(kept), (1 + kept.levels) * width), kept.levels)
        stored = replace(stored, tokens=tokens, deepstack=deepstack)
    return replace(item, kept=stored)


class SizeMeter:
    """Measures items for caches of one configuration."""

    def __init__(self, manifest: Manifest, codec: Codec | None = None) -> None:
        """``codec`` in place of the manifest's; that of an open cache is needed for tokens stored by a codebook."""
        self._manifest = manifest
        self._codec = codec or codec_of(str(manifest.configuration["tokens_dtype"]))

    def measure(self, item: EncodedItem) -> StoredSize:
        """The size of one item as ``CacheWriter`` would write it."""
        schema = shard_schema("data", self._manifest, widened({}, item.metadata))
        empty = _written([], schema)
        payload, groups, blobs = 0, [], []
        constants = {"sequence": 0, "configuration": self._manifest.digest}
        for row in item_rows(item, self._codec):
            full = row | constants
            one, two = (_written([full] * count, schema) for count in (1, 2))
            payload += two - one
            groups.append(one - empty - (two - one))
            blobs.append(row_bytes(row))
        return StoredSize(payload, tuple(blobs), max(groups))

    def total(self, sizes: Sequence[StoredSize]) -> int:
        """Bytes of a cache's data that holds these items in this order."""
        if not sizes:
            return 0
        groups, rows, filled = 0, 0, 0
        for blob in (blob for size in sizes for blob in size.row_bytes):
            if rows and (filled + blob > ROW_GROUP_BYTES or filled >= ROW_GROUP_BYTES or rows >= ROW_GROUP_ROWS):
                groups, rows, filled = groups + 1, 0, 0
            rows, filled = rows + 1, filled + blob
        per_group = sum(size.group_bytes for size in sizes) / len(sizes)
        schema = shard_schema("data", self._manifest)
        return round(_written([], schema) + (groups + 1) * per_group + sum(size.payload_bytes for size in sizes))


def _written(rows: list[Row], schema: pa.Schema) -> int:
    sink = pa.MockOutputStream()
    with pq.ParquetWriter(sink, schema, **writer_options(schema)) as writer:
        if rows:
            table = rows_table(rows, schema)
            writer.write_table(table, row_group_size=len(table))
    return int(sink.size())
