"""Tables that name media files: csv, jsonl, parquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokcli.errors import UsageError
from tokcli.media.names import one_line

MANIFEST_SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq"})


@dataclass(frozen=True)
class ManifestRow:
    """One row; ``problem`` says why it cannot be used, and is None for a good one."""

    number: int
    """From 1, without the header."""
    path: str
    id: str | None
    metadata: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None


def read_manifest(
    path: str,
    *,
    path_col: str = "path",
    id_col: str | None = None,
    columns: Sequence[str] | None = None,
    name: str | None = None,
) -> Iterator[ManifestRow]:
    """Rows in order. Values have the types that the file gives them; csv's are inferred by column.

    Args:
        name: what messages call the file, where ``path`` is a copy of it.

    Raises:
        UsageError: the file as a whole cannot be read, or lacks a column that was asked for.
    """
    suffix = Path(path).suffix.lower()
    name = one_line(path if name is None else name)
    try:
        if suffix in (".jsonl", ".ndjson"):
            known: list[str] | None = None
            rows: _Rows = _json_rows(path)
        else:
            known, rows = (_parquet if suffix in (".parquet", ".pq") else _csv)(path, path_col, id_col)
        if known is not None:
            for wanted in (path_col, *([id_col] if id_col else []), *(columns or ())):
                if wanted not in known:
                    raise UsageError(
                        f"{name}: no column {wanted!r}; its columns are {', '.join(known)} (--path-col, --id-col)"
                    )
        for number, row in rows:
            yield _checked(name, number, row, path_col, id_col, columns)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{name}: the manifest cannot be read: {one_line(str(reason))}") from error


def _checked(
    name: str,
    number: int,
    row: Mapping[str, Any] | str,
    path_col: str,
    id_col: str | None,
    columns: Sequence[str] | None,
) -> ManifestRow:
    where = f"{name}, row {number}"
    if isinstance(row, str):
        return ManifestRow(number, "", None, problem=f"{where}: {row}")
    path = row.get(path_col)
    if not isinstance(path, str) or not path:
        return ManifestRow(number, "", None, problem=f"{where}: {path_col!r} is not a path: {path!r}")
    if "\0" in path:
        return ManifestRow(number, path, None, problem=f"{where}: {one_line(path)} is a name that no file can have")
    id = None
    if id_col is not None:
        value = row.get(id_col)
        if value is None or value == "":
            return ManifestRow(number, path, None, problem=f"{where}: {id_col!r} is empty")
        id = str(value)
    taken = columns if columns is not None else [key for key in row if key not in (path_col, id_col)]
    return ManifestRow(number, path, id, {key: row.get(key) for key in taken})


_Rows = Iterable[tuple[int, Mapping[str, Any] | str]]


def _parquet(path: str, path_col: str, id_col: str | None) -> tuple[list[str], _Rows]:
    import pyarrow.parquet as parquet

    file = parquet.ParquetFile(path)
    rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
    return list(file.schema_arrow.names), enumerate(rows, start=1)


def _csv(path: str, path_col: str, id_col: str | None) -> tuple[list[str], _Rows]:
    import pyarrow as pa
    from pyarrow import csv

    bad: list[tuple[int, str]] = []

    def skip(row: Any) -> str:
        number = len(bad) if row.number is None else row.number - 1
        bad.append((number, f"{row.actual_columns} values where the header has {row.expected_columns}"))
        return "skip"

    table = csv.read_csv(
        path,
        read_options=csv.ReadOptions(use_threads=False),
        parse_options=csv.ParseOptions(
            delimiter="\t" if path.lower().endswith(".tsv") else ",",
            newlines_in_values=True,
            invalid_row_handler=skip,
        ),
        convert_options=csv.ConvertOptions(
            column_types={column: pa.string() for column in (path_col, id_col) if column}
        ),
    )
    # Of texts only the empty one is none: "NA" and "null" are words.
    rows = [{name: None if value == "" else value for name, value in row.items()} for row in table.to_pylist()]
    return table.column_names, _interleave(rows, dict(bad))


def _interleave(good: list[dict[str, Any]], bad: dict[int, str]) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    """Good rows and the bad ones at their places."""
    rest = iter(good)
    for number in range(1, len(good) + len(bad) + 1):
        yield (number, bad[number]) if number in bad else (number, next(rest))


def _json_rows(path: str) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                yield number, f"not JSON: {error}"
                continue
            yield (number, row) if isinstance(row, dict) else (number, "not a JSON object")
