"""Media that lie behind URLs: found by listing what was named, and nothing else."""

from __future__ import annotations

import errno
import glob
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, TypeVar

from tokcli import storage
from tokcli.errors import UsageError
from tokcli.media.names import one_line
from tokcli.storage import Facts, filesystem_of, is_url, read
from tokcli.storage.urls import UnknownProtocolError

Result = TypeVar("Result")

LIST_FROM = 16
"""So many objects of one folder are looked up by listing it, a request for a thousand; fewer by one request each."""
REQUESTS_AT_ONCE = 16


@dataclass(frozen=True)
class RemoteFile:
    """An object as its listing tells of it."""

    url: str
    size_bytes: int
    modified_ns: int


def is_pattern(url: str) -> bool:
    """Whether a URL names several objects by ``*``, ``?`` or ``[]``; those of http have ``?`` for other ends."""
    return not url.startswith("http") and glob.has_magic(url.partition("://")[2])


def suffix_of(url: str) -> str:
    """The suffix of the object's name, in lower case."""
    head = url.partition("::")[0] if "://" in url.partition("::")[0] else url
    return PurePosixPath(head.partition("?")[0] if head.startswith("http") else head).suffix.lower()


def look_up(url: str) -> RemoteFile | None:
    """The object of a URL; None for a folder. Raises ``UsageError`` for what is not there, or may not be read."""
    if url.endswith("/"):
        return None
    try:
        facts = storage.look_up(url)
    except OSError as error:
        raise cannot_read(url, error) from None
    return None if facts.folder else RemoteFile(url, facts.size_bytes, facts.modified_ns)


def exists(url: str) -> bool:
    """Whether there is an object of just this name."""
    try:
        return not storage.look_up(url).folder
    except OSError:
        return False


def walk(url: str) -> list[RemoteFile]:
    """All objects under a folder, sorted by name; hidden ones are left out. Raises ``UsageError``."""
    names = _Names(url)
    infos = _listed(url, names.filesystem.find, names.root)
    return sorted(names.visible(infos.values()), key=lambda file: file.url.split("/"))


def match(pattern: str) -> list[RemoteFile]:
    """Objects that a pattern finds, sorted; folders among them with all that they hold. Raises ``UsageError``."""
    start = next(at for at, char in enumerate(pattern) if char in "*?[" and at > pattern.index("://"))
    names = _Names(pattern[: pattern.rindex("/", 0, start)], pattern)
    infos = _listed(pattern, names.filesystem.glob, names.root_of(pattern))
    found: list[RemoteFile] = []
    for info in sorted(infos.values(), key=lambda info: str(info["name"])):
        if info.get("type") == "directory":
            found += walk(names.url(str(info["name"])))
        else:
            found += names.visible([info])
    return found


def look_up_all(urls: Sequence[str]) -> dict[str, RemoteFile | OSError]:
    """The objects that a manifest names, with as few requests as that takes; an ``OSError`` for what is not there."""
    folders: dict[str, list[str]] = defaultdict(list)
    for url in dict.fromkeys(urls):
        folders[url.rpartition("/")[0]].append(url)
    found: dict[str, RemoteFile | OSError] = {}
    single: list[str] = []
    for folder, members in folders.items():
        if len(members) < LIST_FROM or "::" in folder or folder.startswith("http"):
            single += members
            continue
        listed = _or_error(_children, folder)
        if isinstance(listed, OSError):
            found |= dict.fromkeys(members, listed)
            continue
        for url in members:
            facts = listed.get(filesystem_of(url)[1])
            found[url] = _file(url, facts) if facts else FileNotFoundError("does not exist")
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        for url, told in zip(single, pool.map(partial(_or_error, storage.look_up), single)):
            found[url] = told if isinstance(told, OSError) else _file(url, told)
    return found


def cannot_read(url: str, error: OSError) -> UsageError:
    """Why a URL that was named cannot be used, in one line."""
    reason = error.strerror or " ".join(str(error).split())
    name = one_line(url)
    if isinstance(error, FileNotFoundError):
        return UsageError(f"{name}: no such object or folder ({reason})" if reason else f"{name}: no such object")
    if isinstance(error, PermissionError):
        protocol = url.partition("://")[0]
        return UsageError(f"{name}: the server refuses it ({reason}); check the credentials for {protocol}://")
    return UsageError(f"{name}: cannot be read: {reason}")


def _or_error(call: Callable[[str], Result], url: str) -> Result | OSError:
    """What a call gives for a URL of a manifest, or why it gives nothing, which costs a row and not the run."""
    try:
        return call(url)
    except UnknownProtocolError as error:
        return OSError(errno.EINVAL, str(error))
    except OSError as error:
        return error


def _file(url: str, facts: Facts) -> RemoteFile | OSError:
    return IsADirectoryError("is a folder") if facts.folder else RemoteFile(url, facts.size_bytes, facts.modified_ns)


def _children(folder: str) -> dict[str, Facts]:
    """What lies in a folder, by path."""
    filesystem, path = filesystem_of(folder)
    filesystem.invalidate_cache()
    return {facts.path: facts for facts in map(Facts.of, read(partial(filesystem.ls, path, detail=True)))}


def _listed(url: str, call: Any, path: str) -> dict[str, dict[str, Any]]:
    filesystem, _ = filesystem_of(url)
    # What fsspec remembers of an earlier listing may be long untrue, and of a large bucket it is much to hold.
    filesystem.invalidate_cache()
    try:
        infos: dict[str, dict[str, Any]] = read(partial(call, path, detail=True))
    except OSError as error:
        raise cannot_read(url, error) from None
    finally:
        filesystem.invalidate_cache()
    return infos


class _Names:
    """Paths in a file system as URLs that begin as the one that was given."""

    def __init__(self, url: str, pattern: str | None = None) -> None:
        head, chain, tail = (pattern or url).partition("::")
        # zip://name::s3://bucket/x.zip has the path before what it is in, simplecache::s3://bucket/name behind.
        self._behind = chain + tail if "://" in head else ""
        self._before = url.removesuffix(self._behind).rstrip("/")
        self.filesystem, root = filesystem_of(self._before + self._behind)
        self.root = root.rstrip("/")

    def root_of(self, url: str) -> str:
        return str(filesystem_of(url)[1])

    def url(self, path: str) -> str:
        return self._before + "/" + path.removeprefix(self.root).lstrip("/") + self._behind

    def visible(self, infos: Any) -> Iterator[RemoteFile]:
        for info in infos:
            facts = Facts.of(info)
            # Objects whose names end with a slash stand for folders.
            if facts.folder or facts.path.endswith("/"):
                continue
            below = facts.path.removeprefix(self.root)
            if not any(part.startswith(".") for part in below.split("/")):
                yield RemoteFile(self.url(facts.path), facts.size_bytes, facts.modified_ns)


def join(folder: str, path: str) -> str:
    """A manifest's path, from the URL of the manifest's folder."""
    return path if is_url(path) or os.path.isabs(path) else f"{folder}/{path.removeprefix('./')}"  # noqa: PTH117
