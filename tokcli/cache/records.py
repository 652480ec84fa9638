"""What the cache stores about an item that failed."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class ErrorRow:
    """One failed item, as it stands in the errors table."""

    id: str
    path: str
    stage: str
    """Where it failed: scan, decode, encode, compress or store."""
    error_class: str
    message: str
    """One line."""
    attempts: int = 1
    log_tail: str = ""
    """The last lines that the decoder logged."""
    source_bytes: int = 0
    """Size of the source file when it was tried; 0 where it was not there."""
    source_modified_ns: int = 0


def clean_text(text: str) -> str:
    """Valid UTF-8 for a Parquet string: lone surrogates become the escapes that name them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def clean_path(path: str) -> str:
    r"""A path as a Parquet string; bytes of a file name that are not UTF-8 are written as ``\xNN``."""
    return clean_text(
        os.fsencode(path).decode("utf-8", "backslashreplace") if max(path, default="") >= "\udc80" else path
    )
