"""Rows as other readers of Parquet give them (``datasets``, pyarrow, pandas) back to tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tokcli.cache.checksum import checksum_problem
from tokcli.cache.decode import decode_item
from tokcli.cache.levels import parted
from tokcli.cache.row import Columns, StoredRow
from tokcli.cache.schema import CHECKSUM, META_PREFIX, column_types
from tokcli.cache.tensors import tensor_view
from tokcli.errors import CacheError, IntegrityError
from tokcli.types import EncodedItem

if TYPE_CHECKING:
    import torch

_NEEDED = ("num_tokens", "hidden_size", "dtype", "tokens", "coords", "source")


def decode_row(row: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Tensors of one row of a shard: ``tokens`` (K, D), ``coords`` int32 (K, 4), ``mass`` float32 (K,), ``source``
    int64 (K,), and where the row has them ``deepstack`` (K, L, D), ``times`` float64 (T,), ``assignment`` int32 (N,).

    Of a long item a row holds only a part, see ``num_chunks``; ``decode_rows`` puts the parts together.

    Args:
        row: By column, as ``datasets``, ``pyarrow.Table.to_pylist`` or a row of a pandas frame give it. It must have
            ``num_tokens``, ``hidden_size``, ``dtype``, ``tokens``, ``coords`` and ``source``; and ``mass`` where a
            method that merges made the cache, ``deepstack_levels`` where the cache has that column. With all columns
            its ``row_crc32`` is checked.

    Raises:
        CacheError: A column is missing, or the tokens are stored by a codebook, which a row does not have.
        IntegrityError: The lengths of the columns contradict one another, or the bytes are not those written.
    """
    import torch

    stored = _stored(row, _NEEDED)
    problem = stored.lengths_problem()
    if problem is None and CHECKSUM in row and all(name in row for name in _all_columns()):
        problem = checksum_problem(stored)
    if problem is not None:
        raise IntegrityError(f"the row of {row.get('id', 'an item')}: {problem}")
    tokens, deepstack = parted(stored.tokens(), stored.levels())
    mass = stored.buffer("mass")
    tensors = {
        "tokens": tokens,
        "coords": tensor_view(stored.buffer("coords"), "int32", 4),
        "mass": torch.ones(stored["num_tokens"]) if mass is None else tensor_view(mass, "float32"),
        "source": tensor_view(stored.buffer("source"), "int32").long(),
    }
    if deepstack is not None:
        tensors["deepstack"] = deepstack
    if (times := stored.numbers("times") if "times" in row else None) is not None:
        tensors["times"] = torch.from_numpy(times.copy())
    if (assignment := stored.buffer("assignment") if "assignment" in row else None) is not None:
        tensors["assignment"] = tensor_view(assignment, "int32")
    return tensors


def decode_rows(rows: Iterable[Mapping[str, Any]]) -> EncodedItem:
    """The item that all of its rows are, in whatever order they come; each with all columns.

    Raises:
        CacheError: There is no row, or a column is missing.
        IntegrityError: Rows or lengths contradict one another, or a row is missing.
    """
    ordered = sorted(rows, key=lambda row: row["chunk"])
    if not ordered:
        raise CacheError("decode_rows needs the rows of an item, got none; select them by id")
    needed = _all_columns()
    if len(ordered) != ordered[0]["num_chunks"]:
        raise IntegrityError(
            f"{ordered[0]['id']} has {ordered[0]['num_chunks']} rows, got {len(ordered)}; take all of one shard"
        )
    return decode_item(_stored(row, needed) for row in ordered)


def _array(value: Any, kind: pa.DataType) -> pa.Array:
    """One value; in data frames a number that is missing is a NaN."""
    return pa.array([value], kind, from_pandas=pa.types.is_floating(kind))


def _all_columns() -> list[str]:
    return [str(name) for name in column_types("data").names]


def _stored(row: Mapping[str, Any], needed: Iterable[str]) -> StoredRow:
    """The row in columns of its own, whose memory nobody shares."""
    if missing := [name for name in needed if name not in row]:
        raise CacheError(f"the row lacks {', '.join(missing)}; read these columns too")
    types = column_types("data", levels=1, checksum=True)
    columns = {name: _array(row[name], types.field(name).type) for name in types.names if name in row}
    for name in ("mass", "assignment"):
        columns.setdefault(name, pa.nulls(1, pa.binary()))
    names = [str(name) for name in row.keys()]  # noqa: SIM118 (a row of a pandas frame iterates over its values)
    columns |= {name: pa.array([row[name]]) for name in names if name.startswith(META_PREFIX)}
    return StoredRow(Columns(columns), 0, owned=True)
