"""Outcomes on disk, so that an evaluation that was stopped goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from tokcli.cache.lock import lock_cache
from tokcli.errors import CacheConflictError, CacheError

Line = dict[str, Any]


class Journal:
    """A JSON-lines file: the configuration, then one line for everything that was measured.

    Lines are found by their ``key``; of two with the same key the later one counts. A last line that was torn by a
    kill is cut off. A context manager that holds the lock of its folder: a second run would answer the same questions
    again, and take a line that is being written for a torn one.
    """

    def __init__(self, path: Path, configuration: Mapping[str, Any], *, overwrite: bool = False) -> None:
        """Raises ``CacheConflictError`` for a file of another configuration, ``CacheError`` for another file.

        ``CacheLockedError`` where another process writes it.
        """
        self.path = path
        self.lines: dict[str, Line] = {}
        self._file: IO[str] | None = None
        self._lock = lock_cache(path.parent)
        try:
            if overwrite:
                path.unlink(missing_ok=True)
            self._open(configuration)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, configuration: Mapping[str, Any]) -> None:
        path = self.path
        head = {"configuration": json.loads(json.dumps(configuration))}
        lines = self._read()
        if not lines:
            self._write(head)
            return
        found = lines[0].get("configuration")
        if not isinstance(found, dict) or not all("key" in line for line in lines[1:]):
            raise CacheError(f"{path} is not a file of outcomes; choose another -o, or --overwrite")
        if found != head["configuration"]:
            changed = [
                name for name in {**found, **configuration} if found.get(name) != head["configuration"].get(name)
            ]
            told = "; ".join(
                f"{name}: {json.dumps(found.get(name))} before, {json.dumps(configuration.get(name))} now"
                for name in changed
            )
            raise CacheConflictError(f"{path} holds another evaluation ({told}); choose another -o, or --overwrite")
        self.lines = {line["key"]: line for line in lines[1:]}

    def _read(self) -> list[Line]:
        if not self.path.exists():
            return []
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(self.path, whole)
        try:
            lines = [json.loads(line) for line in data[:whole].splitlines()]
        except ValueError:
            lines = [None]
        if not all(isinstance(line, dict) for line in lines):
            raise CacheError(f"{self.path} is not a file of outcomes; choose another -o, or --overwrite")
        return lines

    def add(self, key: str, line: Line) -> None:
        """Write one line, visible at once. Raises ``CacheError`` where the disk is full."""
        line = {"key": key, **line}
        self._write(line)
        self.lines[key] = line

    def _write(self, line: Line) -> None:
        try:
            self._file = self._file or self.path.open("a", encoding="utf-8")
            self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise CacheError(
                f"{self.path}: cannot write outcomes: {error.strerror}; make room and run again"
            ) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._lock.release()
