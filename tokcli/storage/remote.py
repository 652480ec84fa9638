"""A place behind a URL, with the part of ``pathlib.Path`` that caches need: the same code reads and writes both."""

from __future__ import annotations

import fnmatch
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from tokcli.errors import CacheError, UsageError
from tokcli.storage.failures import as_os_error, is_no_bucket, read
from tokcli.storage.ranges import STREAM_BYTES, RangeFile
from tokcli.storage.scratch import scratch_folder
from tokcli.storage.urls import Facts, filesystem_of, is_s3, is_url, local_path


@dataclass(frozen=True, order=True)
class RemotePath:
    """A place behind a URL. Folders are what names have in common: each is there, and empty until something is put.

    What is read raises ``OSError`` as a file of this machine would, after as many tries as ``read`` makes; what is put
    or deleted is tried once by us.
    """

    url: str
    """Without a slash at the end."""
    facts: Facts | None = field(default=None, compare=False, repr=False)
    """What the listing told that it comes from."""

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> RemotePath:
        return RemotePath(self.url.rpartition("/")[0])

    def relative_to(self, folder: RemotePath) -> PurePosixPath:
        return PurePosixPath(self.url).relative_to(PurePosixPath(folder.url))

    def resolve(self) -> RemotePath:
        return self

    def exists(self) -> bool:
        """Whether there is an object. Raises ``CacheError`` where that cannot be found out."""
        try:
            self.look_up()
        except FileNotFoundError as error:
            if is_no_bucket(error):
                raise self._cannot_read(error) from None
            return False
        except OSError as error:
            raise self._cannot_read(error) from None
        return True

    is_file = exists

    def is_dir(self) -> bool:
        return True

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder is there as soon as something is in it."""

    def iterdir(self) -> Iterator[RemotePath]:
        """What is in the folder, by listing it. Raises ``CacheError``, also for a bucket that does not exist."""
        return self._entries("")

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Entries of this folder by name; the pattern has no slash, and what it begins with is all that is listed."""
        beginning = re.split(r"[*?[]", pattern)[0]
        return (entry for entry in self._entries(beginning) if fnmatch.fnmatchcase(entry.name, pattern))

    def _entries(self, beginning: str) -> Iterator[RemotePath]:
        filesystem, path = filesystem_of(self.url)
        filesystem.invalidate_cache()
        try:
            infos = read(partial(_children, filesystem, path, beginning))
        except FileNotFoundError as error:
            if is_no_bucket(error):
                raise self._cannot_read(error) from None
            return
        except OSError as error:
            raise self._cannot_read(error) from None
        finally:
            filesystem.invalidate_cache()
        seen = set()
        for facts in map(Facts.of, infos):
            name, _, below = facts.path.removeprefix(path).strip("/").partition("/")
            if name and name not in seen:
                seen.add(name)
                yield RemotePath(f"{self.url}/{name}", None if below else facts)

    def look_up(self) -> Facts:
        """What is told of the object: by the listing that it comes from, else by a request. Raises ``OSError``."""
        if self.facts is not None:
            return self.facts
        facts = look_up(self.url)
        if facts.folder:
            raise FileNotFoundError(f"{self.url} is a folder")
        return facts

    def stat(self) -> _Status:
        """With the size, as ``Path.stat``."""
        return _Status(self.look_up().size_bytes)

    def read_bytes(self) -> bytes:
        """The whole object, by one request; for small ones."""
        filesystem, path = filesystem_of(self.url)
        filesystem.invalidate_cache()
        content: bytes = read(partial(filesystem.cat_file, path, **_in_one(filesystem)))
        return content

    def read_ranges(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """Bytes from the first number of each span up to the second, by one request each, many at once."""
        filesystem, path = filesystem_of(self.url)
        starts, ends = [start for start, _ in spans], [end for _, end in spans]
        blocks: list[bytes] = read(partial(filesystem.cat_ranges, [path] * len(spans), starts, ends, on_error="raise"))
        return blocks

    def open(self, mode: str = "rb") -> BinaryIO:
        """For reading from end to end, in large pieces."""
        if mode != "rb":
            raise ValueError(f"an object is opened for reading only, not {mode!r}")
        return io.BufferedReader(RangeFile(self), STREAM_BYTES)

    def put_bytes(self, content: bytes) -> None:
        """Write the object, in the place of one that is there: readers see the old one or the new one. ``OSError``."""
        filesystem, path = filesystem_of(self.url)
        self._do(partial(filesystem.pipe_file, path, content))

    def put_file(self, local: Path) -> None:
        """The same with the content of a file."""
        filesystem, path = filesystem_of(self.url)
        self._do(partial(filesystem.put_file, str(local), path))

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object. Raises ``OSError``."""
        filesystem, path = filesystem_of(self.url)
        try:
            self._do(partial(filesystem.rm_file, path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def _do(self, call: Any) -> None:
        try:
            call()
        except Exception as error:
            raise as_os_error(error) from error

    def _cannot_read(self, error: OSError) -> CacheError:
        return CacheError(f"cannot read {self.url}: {error.strerror or error}; check the address and the credentials")


@dataclass(frozen=True)
class _Status:
    st_size: int


def look_up(url: str) -> Facts:
    """What the server tells of an object or a folder now, by one request. Raises ``OSError``, ``UsageError``."""
    filesystem, path = filesystem_of(url)
    filesystem.invalidate_cache()  # what fsspec remembers of an earlier listing may be long untrue
    return Facts.of(read(partial(filesystem.info, path)))


Location = Path | RemotePath
"""Where a cache lies."""


def location(given: str | Path | RemotePath) -> Location:
    """A path of this machine, or a place behind a URL; ``file://`` is a path. Raises ``UsageError`` for other kinds."""
    if isinstance(given, RemotePath):
        return given
    text = local_path(str(given))
    if not is_url(text):
        return Path(text)
    filesystem_of(text)
    return RemotePath(text.rstrip("/"))


def only_local(given: str | Path | RemotePath, what: str, instead: str) -> Path:
    """The same for what works on folders of this machine only; ``UsageError`` says what to do ``instead``."""
    place = location(given)
    if isinstance(place, RemotePath):
        raise UsageError(f"{place}: {what} works on folders of this machine only; {instead}")
    return place


def work_folder(output: str) -> Path:
    """Where what is too large for memory lies while an output is made: beside it, or on this machine."""
    place = location(output)
    return scratch_folder() if isinstance(place, RemotePath) else place


def _children(filesystem: Any, path: str, beginning: str) -> Sequence[dict[str, Any]]:
    """Of an empty folder s3fs lists the one above as well, with all that may lie there; but not in this way."""
    if is_s3(filesystem):
        return list(filesystem.find(path, detail=True, prefix=beginning).values())
    infos: list[dict[str, Any]] = filesystem.ls(path, detail=True)
    return infos


def _in_one(filesystem: Any) -> dict[str, Any]:
    """s3fs would ask for the size first, to read large objects in parts."""
    return {"max_concurrency": 1} if is_s3(filesystem) else {}
