"""Where tokens begin in a shard: at a multiple of four bytes, so that they can be used where they lie once mapped.

Parquet reads row groups from where the footer says that they begin; between two of them there may be anything.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tokcli.cache.schema import writer_options

MULTIPLE = 4
"""Of bytes: a float32's, and so every dtype's. In front of each value stand four bytes with its length."""
WORTH_BYTES = 64 << 10
"""Of the tokens of one row. Smaller ones are copied as fast as anything else is done with them."""
_CRC_BYTES = 5
"""Of a checksum in a page's header, mostly: one in sixteen is shorter, and then its tokens lie anywhere."""


def padding(position: int, table: pa.Table) -> int:
    """Bytes to write at ``position``, before the row group ``table``, whose last column is the tokens."""
    tokens = table.column(table.num_columns - 1)
    if (pc.max(pc.binary_length(tokens)).as_py() or 0) < WORTH_BYTES:
        return 0
    values = sum(chunk.buffers()[2].size for chunk in tokens.chunks if chunk.buffers()[2] is not None)
    page = values + 4 * len(table)
    return (
        -(position + _bytes_before(table.drop_columns(table.column_names[-1])) + _header(page, len(table))) % MULTIPLE
    )


def _bytes_before(table: pa.Table) -> int:
    """What the other columns take."""
    sink = pa.MockOutputStream()
    with pq.ParquetWriter(sink, table.schema, **writer_options(table.schema)) as writer:
        begin = sink.tell()
        writer.write_table(table, row_group_size=len(table))
        return int(sink.tell() - begin)


def _header(page: int, rows: int) -> int:
    """Bytes of the header of a page of so many bytes and rows: its fields by the rules of Thrift's compact protocol."""
    kind, sizes, checksum = 2, 2 * (1 + _varint(page)), 1 + _CRC_BYTES
    values = 1 + (1 + _varint(rows)) + 3 * 2 + 2 + 1  # three encodings, and statistics that are empty
    return kind + sizes + checksum + values + 1


def _varint(value: int) -> int:
    """Bytes of a positive number."""
    return -(-(2 * value).bit_length() // 7)
