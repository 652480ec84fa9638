"""Which items of a cache are asked about, alone or several together, and what is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from tokcli.cache import Cache
from tokcli.errors import UsageError, nearest
from tokcli.pipeline.prompts import ItemNames, lines_of
from tokcli.pipeline.templates import listed
from tokcli.recipe import InferRecipe

if TYPE_CHECKING:
    import pyarrow as pa

META_PREFIX = "meta_"
_ARRAYS = ("views", "times", "indices", "stats")


@dataclass(frozen=True)
class Subject:
    """What a question is about."""

    id: str
    """The item's, or the value that the items of a group have in common."""
    items: tuple[str, ...]
    """Ids, in the order of the cache."""
    fields: Mapping[str, Any]
    """What templates can name; of a group the values of its items, equal ones once."""
    source_hash: str
    """Of the media file; of a group of all of them."""


def subjects(cache: Cache, recipe: InferRecipe) -> tuple[list[Subject], list[str]]:
    """What the recipe's ``ids``, ``where``, ``sample``, ``limit`` and ``group_by`` leave, and what is worth a warning.

    ``sample`` takes the same items whatever the order of the cache is, and keeps most of them when it grows.

    Raises:
        UsageError: An id, a column or a condition that the cache knows nothing of.
    """
    table = known(cache)
    rows = table.to_pylist()
    where = str(recipe.cache)
    if recipe.ids:
        wanted = set(named(rows, recipe.ids, where))
        rows = [row for row in rows if row["id"] in wanted]
    if recipe.where is not None:
        found = passing(table, recipe.where)
        rows = [row for row in rows if row["id"] in found]
    if recipe.sample is not None:
        drawn = sorted(rows, key=lambda row: hashlib.sha256(f"{recipe.seed} {row['id']}".encode()).digest())
        drawn_ids = {row["id"] for row in drawn[: recipe.sample]}
        rows = [row for row in rows if row["id"] in drawn_ids]
    if recipe.group_by is None:
        return [Subject(row["id"], (row["id"],), row, row["source_blake3"]) for row in rows[: recipe.limit]], []
    return _grouped(rows, recipe.group_by, recipe.limit, table.column_names, where)


def known(cache: Cache) -> pa.Table:
    """A row per item: all that the cache tells of it but arrays, and the user's own columns without their prefix too.

    Where a column of the user's has the name of one of the cache's, only the prefixed one is the user's.
    ``duration_s`` is short for ``duration_seconds``.
    """
    table = cache.table()
    table = table.drop_columns([name for name in _ARRAYS if name in table.column_names])
    own = [name for name in table.column_names if name.startswith(META_PREFIX)]
    for name in own:
        short = name.removeprefix(META_PREFIX)
        if short not in table.column_names:
            table = table.append_column(short, table[name])
    if "duration_s" not in table.column_names:
        table = table.append_column("duration_s", table["duration_seconds"])
    return table


def named(rows: Sequence[Mapping[str, Any]], texts: Sequence[str], cache: str) -> list[str]:
    """Ids that ``texts`` stand for: each is an id, several with commas between, or a file with one a line.

    Raises ``UsageError`` for an id that none of the rows has.
    """
    names = ItemNames(row["id"] for row in rows)
    found = []
    for text in texts:
        parts = [text]
        if names.find(text) is None:
            parts = _lines(Path(text)) if Path(text).is_file() else [part.strip() for part in text.split(",")]
        for part in parts:
            item_id = names.find(part)
            if item_id is None:
                raise UsageError(f"{cache}: no item {part!r}; `tokcli inspect {cache}` lists its ids")
            found.append(item_id)
    return found


def _lines(path: Path) -> list[str]:
    try:
        lines = lines_of(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read the ids: {getattr(error, 'strerror', None) or error}") from None
    return [line.strip() for line in lines if line.strip()]


def passing(table: pa.Table, condition: str) -> set[str]:
    """Ids of the rows for which an SQL condition is true. Raises ``UsageError`` for a condition that is none."""
    import duckdb

    # A condition may come from a stranger's recipe: it sees this table and no file.
    connection = duckdb.connect(config={"enable_external_access": "false"})
    try:
        relation = connection.from_arrow(table)
        return {row[0] for row in relation.filter(condition).project("id").fetchall()}
    except duckdb.Error as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(line for line in said[:2] if not line.startswith(("LINE", "^")))
        raise UsageError(f"--where {condition!r}: {reason}") from None
    finally:
        connection.close()


def _grouped(
    rows: Sequence[dict[str, Any]], column: str, limit: int | None, columns: Sequence[str], cache: str
) -> tuple[list[Subject], list[str]]:
    if column not in columns:
        raise UsageError(
            f"--group-by {column}: {cache} has no such column; it has {', '.join(listed(columns))}"
            f"{nearest(column, columns)}"
        )
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row[column] is not None:
            groups.setdefault(str(row[column]), []).append(row)
    without = sum(row[column] is None for row in rows)
    notes = [f"{without} items have no {column} and are left out"] if without else []
    return [_group(value, members) for value, members in list(groups.items())[:limit]], notes


def _group(value: str, rows: Sequence[dict[str, Any]]) -> Subject:
    fields = {}
    for name in rows[0]:
        values = list(dict.fromkeys(str(row[name]) for row in rows if row[name] is not None))
        fields[name] = ", ".join(values) or None
    digest = blake3("".join(row["source_blake3"] for row in rows).encode()).hexdigest()
    return Subject(value, tuple(row["id"] for row in rows), fields, digest)
