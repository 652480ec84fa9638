"""Where answers are written, so that a run that was stopped goes on.

Every answer is appended to a JSON-lines file as soon as it is there. For ``.jsonl`` that file is the output; for
``.csv`` and ``.parquet`` it stands beside the output until the run is complete.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from tokcli.cache.atomic import write_atomically
from tokcli.errors import CacheConflictError, CacheError, UsageError

FORMATS = (".jsonl", ".csv", ".parquet")
# Rows of one output must agree in these, or it would hold answers to different questions.
IDENTITY = ("model", "cache_fingerprint", "settings")
Row = dict[str, Any]


def key_of(row: Row) -> tuple[str, str]:
    """What tells a row's question from all others."""
    return row["id"], row.get("conversation") or row["prompt"]


class AnswerFile:
    """Answers of one run at ``path``; knows which (id, prompt) pairs it holds already.

    Answers to an item that was made anew since, from a file that changed, are dropped and asked again.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, str],
        overwrite: bool,
        hashes: Mapping[str, str] | None = None,
        retry_errors: bool = False,
    ) -> None:
        """``hashes`` gives the source hash of every item as it is in the cache now; rows with an error are dropped too
        where ``retry_errors`` says so.

        Raises ``UsageError`` for an unknown suffix, ``CacheConflictError`` for answers of another run."""
        if path.suffix not in FORMATS:
            raise UsageError(f"{path}: unknown output format {path.suffix!r}; allowed: {', '.join(FORMATS)}")
        if not path.parent.is_dir():
            raise UsageError(f"{path}: the folder {path.parent} does not exist")
        self.path = path
        self.journal = path if path.suffix == ".jsonl" else path.with_name(path.name + ".partial.jsonl")
        if overwrite:
            self.journal.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        self.rows = self._existing()
        for row in self.rows:
            for name, value in identity.items():
                held = row.get(name) or ""
                if held != value:
                    raise CacheConflictError(
                        f"{path} holds answers with {name} {held or 'of the defaults'}, "
                        f"this run has {value or 'the defaults'}; "
                        "choose another -o, or --overwrite"
                    )
        if retry_errors:
            self._keep([row for row in self.rows if not row.get("error")])
        self.stale = self._drop_stale(hashes or {})
        """How many answers were dropped."""
        self.done = {key_of(row) for row in self.rows}
        self._file: IO[str] | None = None

    def _drop_stale(self, hashes: Mapping[str, str]) -> int:
        current = [row for row in self.rows if row.get("source_hash") == hashes.get(row["id"], row.get("source_hash"))]
        stale = len(self.rows) - len(current)
        self._keep(current)
        return stale

    def _keep(self, rows: list[Row]) -> None:
        if len(rows) < len(self.rows):
            self.rows = rows
            write_atomically(self.journal, "".join(_line(row) for row in rows).encode())

    def _existing(self) -> list[Row]:
        if self.journal.exists():
            return self._read_journal()
        if not self.path.exists():
            return []
        if self.path.suffix == ".csv":
            with self.path.open(newline="", encoding="utf-8") as file:
                return [dict(row) for row in csv.DictReader(file)]
        import pyarrow.parquet as pq

        return pq.read_table(self.path).to_pylist()

    def _read_journal(self) -> list[Row]:
        """Complete rows; a last line that was torn by a kill is cut off."""
        data = self.journal.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(self.journal, whole)
        try:
            rows = [json.loads(line) for line in data[:whole].splitlines()]
            if all({"id", "prompt"} <= row.keys() for row in rows):
                return rows
        except (ValueError, AttributeError):
            pass
        raise CacheError(f"{self.journal} is not a file of answers; choose another -o, or --overwrite")

    def append(self, rows: list[Row]) -> None:
        """Write rows in one call, and make them visible at once. Raises ``CacheError`` where the disk is full."""
        try:
            if self._file is None:
                fresh = not self.journal.exists()
                self._file = self.journal.open("a", encoding="utf-8")
                if fresh and self.rows:
                    rows = [*self.rows, *rows]
            self._file.write("".join(_line(row) for row in rows))
            self._file.flush()
        except OSError as error:
            raise CacheError(f"{self.path}: cannot write answers: {error.strerror}; make room and run again") from error
        self.done.update(key_of(row) for row in rows)

    def finish(self) -> None:
        """Make the output complete: csv and parquet are written at once from all rows, an earlier run's too."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
        if self.journal == self.path or not self.journal.exists():
            return
        rows = self._read_journal()
        write_atomically(self.path, _as_csv(rows) if self.path.suffix == ".csv" else _as_parquet(rows))
        self.journal.unlink()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _columns(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _as_csv(rows: list[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows))
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value


def _as_parquet(rows: list[Row]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    columns = {name: _array([row.get(name) for row in rows]) for name in _columns(rows)}
    pq.write_table(pa.table(columns), buffer, write_page_checksum=True)
    return buffer.getvalue()


def _array(values: list[Any]) -> Any:
    """One type for a column; values that have none in common become their JSON."""
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        texts = [v if v is None or isinstance(v, str) else json.dumps(v, ensure_ascii=False) for v in values]
        return pa.array(texts, pa.string())
