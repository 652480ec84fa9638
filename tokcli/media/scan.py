"""What was given on the command line, to the list of items to do."""

from __future__ import annotations

import glob
import os
import stat
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokcli.errors import UsageError
from tokcli.media.manifest import MANIFEST_SUFFIXES, read_manifest
from tokcli.media.names import one_line, utf8_name
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


def scan_inputs(
    inputs: Sequence[str], *, path_col: str = "path", id_col: str | None = None, columns: Sequence[str] | None = None
) -> ScanResult:
    """Find the media in files, folders, glob patterns and manifests; nothing is opened but folders and manifests.

    Folders are walked to the bottom; a link to a folder is followed where that folder isn't met without it, once.
    Hidden files and files without a media suffix are left out. A file that is named is always taken, and an existing
    path is never a pattern, whatever is in its name.
    Manifests (.csv .tsv .jsonl .ndjson .parquet) name a file a row; relative paths start from the manifest's folder.

    Args:
        path_col: the manifest column with the paths.
        id_col: the manifest column with the ids; None takes the paths.
        columns: the manifest columns to carry along as metadata; None takes all the others.

    Returns:
        Items with unique ids. The same path given twice is one item; the same id on two manifest rows is a failure.

    Raises:
        UsageError: a named input does not exist, a manifest cannot be read, or there is no media at all.
    """
    found = _Found()
    for given in inputs:
        if "://" in given:
            raise UsageError(f"{one_line(given)}: remote inputs are not read; copy the files first and give the folder")
        if os.path.lexists(given):
            _take(found, given, path_col, id_col, columns)
        elif glob.has_magic(given):
            matches = sorted(glob.glob(given, recursive=True))  # noqa: PTH207 - keeps "./" as given
            wanted = [match for match in matches if Path(match).is_dir() or _matches(match, given)]
            if not wanted:
                raise UsageError(f"{one_line(given)}: no media matches this pattern")
            for match in wanted:
                _take(found, match, path_col, id_col, columns)
        else:
            raise UsageError(f"{one_line(given)}: no such file or folder")
    if not found.result.items and not found.result.failures:
        names = ", ".join(one_line(given) for given in inputs) or "nothing"
        raise UsageError(
            f"no media found in {names}; give video or image files, folders that hold some, or a manifest "
            f"({' '.join(sorted(MANIFEST_SUFFIXES))})"
        )
    return found.result


class _Found:
    """Collects items; knows which ids are taken."""

    def __init__(self) -> None:
        self.result = ScanResult()
        self._paths: dict[str, str] = {}

    def add(
        self, path: str, *, id: str | None = None, row: str = "", metadata: dict[str, object] | None = None
    ) -> None:
        """Take a file. ``row`` is the id of the manifest row that names it, for failures that must not take ``id``."""
        name = id if id is not None else utf8_name(os.path.normpath(path))
        if name in self._paths:
            if id is not None:
                # Under an id of its own: a failure under the shared one would stand for the first row too.
                self.fail(row, path, f"the id {one_line(name)!r} was given before, for {one_line(self._paths[name])}")
                return
            if os.path.normpath(self._paths[name]) == os.path.normpath(path):
                return
            # Two names that differ only in bytes that are not UTF-8: the second is told apart by its own bytes.
            name = f"{name}#{os.fsencode(path).hex()}"
        self._paths[name] = path
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
        self.result.failures.append(ScanFailure(id, utf8_name(path), message))


def _take(found: _Found, path: str, path_col: str, id_col: str | None, columns: Sequence[str] | None) -> None:
    if Path(path).is_dir():
        for file in _walk(found, path):
            found.add(file)
    elif Path(path).suffix.lower() in MANIFEST_SUFFIXES:
        folder = os.path.dirname(path)  # noqa: PTH120 - keeps "./" and surrogate escapes as given
        for row in read_manifest(path, path_col=path_col, id_col=id_col, columns=columns):
            own = f"{utf8_name(os.path.normpath(path))}#{row.number}"
            if row.problem is not None:
                found.fail(own, row.path or path, row.problem)
            else:
                found.add(os.path.join(folder, row.path), id=row.id, row=own, metadata=row.metadata)  # noqa: PTH118
    else:
        found.add(path)


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
    suffix = Path(path).suffix.lower()
    return suffix in MEDIA_SUFFIXES | MANIFEST_SUFFIXES or (
        suffix != "" and not glob.has_magic(Path(pattern).suffix) and Path(pattern).suffix.lower() == suffix
    )
