"""What was given on the command line, to the list of items to do."""

from __future__ import annotations

import glob
import os
import stat
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tokcli.errors import UsageError
from tokcli.media import remote
from tokcli.media.manifest import MANIFEST_SUFFIXES, ManifestRow, read_manifest
from tokcli.media.names import one_line, utf8_name
from tokcli.media.remote import RemoteFile
from tokcli.storage import is_url, local_path
from tokcli.storage.fetch import Fetch
from tokcli.types import MediaItem

_SUFFIXES = """
    .mp4 .m4v .mov .qt .mkv .webm .avi .flv .f4v .wmv .asf .mpg .mpeg .m1v .m2v .vob .ts .mts .m2ts .3gp .3g2 .ogv .ogm
    .mxf .divx .dv .rm .rmvb .y4m .gif .apng
    .jpg .jpeg .jpe .jfif .png .webp .bmp .dib .tif .tiff .avif .heic .heif .hif .ppm .pgm .pbm .pnm .pfm .jp2 .j2k
    .jpx .ico .psd .qoi .dds
"""
MEDIA_SUFFIXES = frozenset(_SUFFIXES.split())
"""What is taken from folders."""


@dataclass(frozen=True)
class ScanFailure:
    """An input that is named but cannot be taken: it becomes an error row."""

    id: str
    path: str
    message: str


@dataclass
class ScanResult:
    """Items in the order of the inputs, folders sorted by name."""

    items: list[MediaItem] = field(default_factory=list)
    failures: list[ScanFailure] = field(default_factory=list)
    passed_over: int = 0
    """Files in folders that were left out because their names are not those of media."""
    elsewhere: list[str] = field(default_factory=list)
    """Ids of inputs that were not wanted; nothing else is known of them."""

    @property
    def ids(self) -> list[str]:
        """Of all inputs, also of those that cannot be opened or were not wanted."""
        return [item.id for item in self.items] + [failure.id for failure in self.failures] + self.elsewhere


def scan_inputs(
    inputs: Sequence[str],
    *,
    path_col: str = "path",
    id_col: str | None = None,
    columns: Sequence[str] | None = None,
    wanted: Callable[[str], bool] | None = None,
) -> ScanResult:
    """Find the media in files, folders, glob patterns, manifests and URLs; nothing is opened but folders and manifests.

    Folders are walked to the bottom; a link to a folder is followed where that folder isn't met without it, once.
    Hidden files and files without a media suffix are left out. A file that is named is always taken, and an existing
    path is never a pattern, whatever is in its name.
    Manifests (.csv .tsv .jsonl .ndjson .parquet) name a file a row; relative paths start from the manifest's folder.
    All of these may be URLs that fsspec knows, ``s3://bucket/folder/``; of a server only what is named is listed.

    Args:
        path_col: the manifest column with the paths.
        id_col: the manifest column with the ids; None takes the paths.
        columns: the manifest columns to carry along as metadata; None takes all the others.
        wanted: which ids to take; the files of others are not looked at. None takes all.

    Returns:
        Items with unique ids. The same path given twice is one item; the same id on two manifest rows is a failure.

    Raises:
        UsageError: a named input does not exist, a manifest cannot be read, or there is no media at all.
    """
    found = _Found(wanted)
    read_rows = partial(read_manifest, path_col=path_col, id_col=id_col, columns=columns)
    for given in map(local_path, inputs):
        if is_url(given):
            _take_remote(found, given, read_rows)
        elif os.path.lexists(given):
            _take(found, given, read_rows)
        elif glob.has_magic(given):
            matches = sorted(glob.glob(given, recursive=True))  # noqa: PTH207 - keeps "./" as given
            media = [match for match in matches if Path(match).is_dir() or _matches(match, given)]
            if not media:
                raise UsageError(f"{one_line(given)}: no media matches this pattern")
            for match in media:
                _take(found, match, read_rows)
        else:
            raise UsageError(f"{one_line(given)}: no such file or folder")
    if not found.result.items and not found.result.failures and not found.result.elsewhere:
        names = ", ".join(one_line(given) for given in inputs) or "nothing"
        raise UsageError(
            f"no media found in {names}; give video or image files, folders that hold some, or a manifest "
            f"({' '.join(sorted(MANIFEST_SUFFIXES))})"
        )
    return found.result


class _Found:
    """Collects items; knows which ids are taken."""

    def __init__(self, wanted: Callable[[str], bool] | None) -> None:
        self.result = ScanResult()
        self._wanted = wanted
        self._paths: dict[str, str] = {}

    def add(
        self,
        path: str,
        *,
        id: str | None = None,
        row: str = "",
        metadata: dict[str, object] | None = None,
        listed: RemoteFile | OSError | None = None,
    ) -> None:
        """Take a file. ``row`` is the id of the manifest row that names it, for failures that must not take ``id``;
        ``listed`` what was found out about a URL."""
        name = id if id is not None else utf8_name(_normal(path))
        if name in self._paths:
            if id is not None:
                # Under an id of its own: a failure under the shared one would stand for the first row too.
                self.fail(row, path, f"the id {one_line(name)!r} was given before, for {one_line(self._paths[name])}")
                return
            if _normal(self._paths[name]) == _normal(path):
                return
            # Two names that differ only in bytes that are not UTF-8: the second is told apart by its own bytes.
            name = f"{name}#{os.fsencode(path).hex()}"
        self._paths[name] = path
        if not self.wants(name):
            self.result.elsewhere.append(name)
            return
        if isinstance(listed, OSError):
            self.fail(name, path, f"{one_line(path)}: {listed.strerror or listed}")
            return
        if listed is not None:
            item = MediaItem(name, path, listed.size_bytes, listed.modified_ns, metadata or {})
            self.result.items.append(item)
            return
        try:
            status = os.stat(path)  # noqa: PTH116 - a name with surrogate escapes goes through unchanged
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            link = missing and Path(path).is_symlink()
            reason = "is a link to a file that is missing" if link else "does not exist" if missing else error.strerror
            self.fail(name, path, f"{one_line(path)}: {reason or error}")
            return
        except ValueError as error:
            self.fail(name, path, f"{one_line(path)}: {error}")
            return
        if not stat.S_ISREG(status.st_mode):
            what = "is a folder" if stat.S_ISDIR(status.st_mode) else "is not a plain file (a pipe, socket or device)"
            self.fail(name, path, f"{one_line(path)}: {what}")
            return
        item = MediaItem(name, path, status.st_size, status.st_mtime_ns, metadata or {})
        self.result.items.append(item)

    def fail(self, id: str, path: str, message: str) -> None:
        if self.wants(id):
            self.result.failures.append(ScanFailure(id, utf8_name(path), message))
        else:
            self.result.elsewhere.append(id)

    def wants(self, id: str) -> bool:
        return self._wanted is None or self._wanted(id)


def _normal(path: str) -> str:
    return path if is_url(path) else os.path.normpath(path)


def _join(folder: str, path: str) -> str:
    return path if is_url(path) else os.path.join(folder, path)  # noqa: PTH118 - keeps "./" as given


_Rows = Callable[..., Iterable[ManifestRow]]


def _take(found: _Found, path: str, read_rows: _Rows) -> None:
    if Path(path).is_dir():
        for file in _walk(found, path):
            found.add(file)
    elif Path(path).suffix.lower() in MANIFEST_SUFFIXES:
        folder = os.path.dirname(path)  # noqa: PTH120 - keeps "./" and surrogate escapes as given
        _take_rows(found, read_rows(path), os.path.normpath(path), partial(_join, folder))
    else:
        found.add(path)


def _take_remote(found: _Found, url: str, read_rows: _Rows) -> None:
    if remote.is_pattern(url) and not remote.exists(url):
        files = [file for file in remote.match(url) if _matches(file.url, url)]
        if not files:
            raise UsageError(f"{one_line(url)}: no media matches this pattern")
        for file in files:
            _take_object(found, file, read_rows)
    elif (named := remote.look_up(url)) is not None:
        _take_object(found, named, read_rows)
    else:
        for file in remote.walk(url):
            if remote.suffix_of(file.url) in MEDIA_SUFFIXES:
                found.add(file.url, listed=file)
            else:
                found.result.passed_over += 1


def _take_object(found: _Found, file: RemoteFile, read_rows: _Rows) -> None:
    suffix = remote.suffix_of(file.url)
    if suffix not in MANIFEST_SUFFIXES:
        found.add(file.url, listed=file)
        return
    with tempfile.TemporaryDirectory(prefix="tokcli-manifest-") as folder:
        local = Path(folder) / f"manifest{suffix}"
        try:
            Fetch(file.url, local, file.size_bytes).run()
        except OSError as error:
            raise remote.cannot_read(file.url, error) from None
        _take_rows(
            found, read_rows(str(local), name=file.url), file.url, partial(remote.join, file.url.rpartition("/")[0])
        )


def _take_rows(found: _Found, rows: Iterable[ManifestRow], manifest: str, join: Callable[[str], str]) -> None:
    """Take what a manifest names; ``join`` makes a row's path one from here."""
    read = [(row, "" if row.problem is not None else local_path(join(row.path))) for row in rows]
    listed = remote.look_up_all([path for row, path in read if is_url(path) and found.wants(row.id or path)])
    for row, path in read:
        own = f"{utf8_name(manifest)}#{row.number}"
        if row.problem is not None:
            found.fail(own, row.path or manifest, row.problem)
        else:
            found.add(path, id=row.id, row=own, metadata=row.metadata, listed=listed.get(path))


def _walk(found: _Found, top: str) -> list[str]:
    """Media files under ``top``, sorted by name, folder by folder.

    Every folder is walked once, real ones first: links in circles, or from each of many folders to all others, would
    otherwise never end, and the same files would come under several names.
    """
    files: list[str] = []
    walked: set[tuple[int, int]] = set()
    folders, links = [top], deque[str]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        try:
            status = os.stat(folder)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in walked:
                continue
            walked.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                names = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            found.fail(utf8_name(os.path.normpath(folder)), folder, f"{one_line(folder)}: {error.strerror or error}")
            continue
        for entry in sorted(names, key=lambda entry: os.fsencode(entry.name)):
            if _is_folder(entry):
                (links if entry.is_symlink() else folders).append(entry.path)
            elif Path(entry.name).suffix.lower() in MEDIA_SUFFIXES:
                files.append(entry.path)
            else:
                found.result.passed_over += 1
    return sorted(files, key=lambda file: os.fsencode(file).split(b"/"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _matches(path: str, pattern: str) -> bool:
    """Whether a file that a pattern found is meant: media or manifest, or with the very suffix the pattern spells."""
    suffix = remote.suffix_of(path) if is_url(path) else Path(path).suffix.lower()
    return suffix in MEDIA_SUFFIXES | MANIFEST_SUFFIXES or (
        suffix != "" and not glob.has_magic(Path(pattern).suffix) and Path(pattern).suffix.lower() == suffix
    )
