"""URLs, the file systems behind them, and what a listing tells of an object."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from blake3 import blake3

from tokcli.errors import UsageError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*(::[A-Za-z][A-Za-z0-9+.\-]*)*://")
_EXTRAS = {"s3": "s3", "s3a": "s3"}
"""By protocol, the extra of tokcli that brings its file system."""
# What the file systems of fsspec call the time of writing, and what changes with every writing.
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
_TAGS = ("ETag", "etag", "md5Hash", "generation")
_SECOND = 1_000_000_000


class UnknownProtocolError(UsageError):
    """A URL of a kind that fsspec does not know."""


def is_url(text: str) -> bool:
    """Whether a text names something by protocol; paths of this machine do not."""
    return _URL.match(text) is not None


def local_path(text: str) -> str:
    """The path that a ``file://`` URL names; any other text as it is."""
    if not re.match(r"(file|local)://", text):
        return text
    return unquote(urlsplit(text).path) if "%" in text else text.partition("://")[2]


def filesystem_of(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Endpoint and credentials are those of fsspec's configuration and of the library behind the protocol: for s3 the
    variables and files of AWS. Raises ``UsageError`` for an unknown protocol, or one whose package is not installed.
    """
    import fsspec
    from fsspec.core import url_to_fs

    protocol = url.partition("://")[0].partition("::")[0].lower()
    try:
        filesystem, path = url_to_fs(url)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        command = f"pip install 'tokcli[{extra}]'" if extra else " ".join(str(error).split())
        raise UsageError(f"{url}: a package for {protocol}:// is not installed: {command}") from None
    except ValueError as error:
        known = ", ".join(sorted(fsspec.available_protocols()))
        raise UnknownProtocolError(f"{url}: {' '.join(str(error).split())}; known protocols: {known}") from None
    return filesystem, path


def is_s3(filesystem: Any) -> bool:
    """Whether it is that of s3fs, some of whose habits have to be worked around."""
    protocol = filesystem.protocol
    return "s3" in (protocol if isinstance(protocol, tuple | list) else (protocol,))


@dataclass(frozen=True)
class Facts:
    """What a listing tells of an object."""

    path: str
    """In its file system."""
    size_bytes: int
    modified_ns: int
    """Nanoseconds since the epoch; 0 where nothing is told.

    Object stores tell whole seconds. What is below a second is taken from the ETag, so that an object which was written
    twice in one second does not pass for the one before.
    """
    folder: bool = False

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Facts:
        """From what fsspec gives for an object."""
        name = str(info["name"])
        return cls(name, int(info.get("size") or 0), _modified_ns(info), info.get("type") == "directory")


def _modified_ns(info: Mapping[str, Any]) -> int:
    told = next((info[key] for key in _TIMES if key in info), 0)
    if isinstance(told, str):
        try:
            told = datetime.fromisoformat(told)
        except ValueError:
            told = 0
    if isinstance(told, datetime):
        moment = told if told.tzinfo else told.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        modified = (since.days * 86_400 + since.seconds) * _SECOND + since.microseconds * 1000
    else:
        modified = int(told * _SECOND) if isinstance(told, int | float) else 0
    tag = next((info[key] for key in _TAGS if info.get(key)), None)
    if tag is not None and modified % _SECOND == 0:
        modified += int.from_bytes(blake3(str(tag).encode()).digest(length=8), "little") % _SECOND
    return modified
