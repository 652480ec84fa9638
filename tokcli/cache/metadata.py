"""The user's own columns: values of any type, carried along under ``meta_``.

A Parquet column has one type, users' manifests do not always agree on it. Types widen as values come: int to double,
anything else that clashes to text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tokcli.cache.records import clean_text


def metadata_type(value: Any) -> pa.DataType | None:
    """Arrow type of one value; None where the value says nothing (None)."""
    try:
        kind = pa.array([value]).type
    except (pa.ArrowException, OverflowError, UnicodeEncodeError, ValueError, TypeError):
        return pa.string()
    if pa.types.is_null(kind):
        return None
    if pa.types.is_dictionary(kind) or isinstance(kind, pa.BaseExtensionType):
        return pa.string()
    return kind


def wider_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds values of both; text where Arrow knows no common one."""
    if one == other:
        return one
    try:
        schemas = [pa.schema([("x", kind)]) for kind in (one, other)]
        return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except pa.ArrowException:
        return pa.string()


def widened(types: Mapping[str, pa.DataType], metadata: Mapping[str, Any]) -> dict[str, pa.DataType]:
    """``types`` with room for one more item's values; new names come last."""
    result = dict(types)
    for name, value in metadata.items():
        kind = metadata_type(value)
        if kind is None:
            continue
        kind = wider_type(result[name], kind) if name in result else kind
        result[name] = kind if _holds(kind, value) else pa.string()
    return result


def _holds(kind: pa.DataType, value: Any) -> bool:
    try:
        pa.array([fitted(value, kind)], kind)
    except (pa.ArrowException, OverflowError, ValueError, TypeError):
        return False
    return True


def fitted(value: Any, kind: pa.DataType) -> Any:
    """``value`` as a column of type ``kind`` takes it."""
    if value is None:
        return None
    if pa.types.is_string(kind):
        return clean_text(value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False))
    if pa.types.is_floating(kind) and isinstance(value, int):
        return float(value)  # pyarrow refuses integers beyond 2**53 rather than round them
    return value


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of any type as text, as ``fitted`` writes it."""
    if pa.types.is_string(column.type):
        return column
    return pa.chunked_array([pa.array([fitted(v, pa.string()) for v in column.to_pylist()], pa.string())])


def concatenated(tables: list[pa.Table]) -> pa.Table:
    """One table out of shards whose metadata columns may differ in presence and type.

    Missing columns are filled with nulls. Columns keep the place that the newest shard gives them.
    """
    types: dict[str, pa.DataType] = {}
    for table in tables:
        for field in table.schema:
            types[field.name] = wider_type(types[field.name], field.type) if field.name in types else field.type
    order = {name: None for table in reversed(tables) for name in table.column_names}
    return pa.concat_tables([aligned(table, {name: types[name] for name in order}) for table in tables])


def aligned(table: pa.Table, types: Mapping[str, pa.DataType]) -> pa.Table:
    """These columns of a table, each of its type; those that it lacks hold nulls."""
    return pa.table({name: _column(table, name, kind) for name, kind in types.items()})


def _column(table: pa.Table, name: str, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    if name not in table.column_names:
        return pa.nulls(len(table), kind)
    return as_text(table[name]) if pa.types.is_string(kind) else table[name].cast(kind, safe=False)
