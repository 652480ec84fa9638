"""A place behind a URL, with the part of ``pathlib.Path`` that caches need: the same code reads and writes both."""

from __future__ import annotations

import fnmatch
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from tokcli.errors import CacheError, UsageError
from tokcli.storage.failures import as_os_error, is_no_bucket, read
from tokcli.storage.ranges import STREAM_BYTES, RangeFile
from tokcli.storage.scratch import scratch_folder
from tokcli.storage.urls import Facts, filesystem_of, is_url, local_path


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
        """What is in the folder, by one listing. Raises ``CacheError``, also for a bucket that does not exist."""
        filesystem, path = filesystem_of(self.url)
        filesystem.invalidate_cache()
        try:
            infos = read(partial(filesystem.ls, path, detail=True))
        except FileNotFoundError as error:
            if is_no_bucket(error):
                raise self._cannot_read(error) from None
            return
        except OSError as error:
            raise self._cannot_read(error) from None
        finally:
            filesystem.invalidate_cache()
        for facts in map(Facts.of, infos):
            name = facts.path.rstrip("/").rpartition("/")[2]
            if name and facts.path.rstrip("/") != path.rstrip("/"):
                yield RemotePath(f"{self.url}/{name}", facts)

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """Entries of this folder by name; the pattern has no slash."""
        return (entry for entry in self.iterdir() if fnmatch.fnmatchcase(entry.name, pattern))

    def look_up(self) -> Facts:
        """What is told of the object: by the listing that it comes from, else by a request. Raises ``OSError``."""
        if self.facts is not None:
            return self.facts
        filesystem, path = filesystem_of(self.url)
        filesystem.invalidate_cache()
        facts = Facts.of(read(partial(filesystem.info, path)))
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


def _in_one(filesystem: Any) -> dict[str, Any]:
    """s3fs would ask for the size first, to read large objects in parts."""
    names = filesystem.protocol if isinstance(filesystem.protocol, tuple | list) else (filesystem.protocol,)
    return {"max_concurrency": 1} if "s3" in names else {}
