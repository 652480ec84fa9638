"""What a file is, by its first bytes."""

from __future__ import annotations

from typing import Literal

from tokcli.errors import MediaError

MediaClass = Literal["still", "animation", "video"]
""""animation" is for Pillow to look at: it may hold one picture or many."""

_STILLS = (
    b"\xff\xd8\xff",  # JPEG
    b"BM",
    b"II*\0",  # TIFF
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"PF",  # netpbm
    b"\0\0\1\0",  # ICO
    b"8BPS",
    b"\0\0\0\x0cjP  ",  # JPEG 2000
    b"\xff\x4f\xff\x51",
    b"qoif",
    b"DDS ",
)  # fmt: skip
_ARCHIVES = (
    (0, b"PK\x03\x04", "zip"),
    (0, b"PK\x05\x06", "zip"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!\x1a\x07", "rar"),
    (257, b"ustar", "tar"),
)
_STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"hevc", b"hevx")


def sniff(head: bytes) -> MediaClass:
    """The class of a file that begins with ``head`` (a few kilobytes); unknown content is taken for video.

    Raises:
        MediaError: the file is text (an error page, a git-LFS pointer, a playlist that names other files) or an
            archive, which is not opened: what it unpacks to may be anything, also in size.
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n") or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "animation"
    if head.startswith(b"GIF8"):
        return "animation"
    if head[4:8] == b"ftyp":
        return "still" if head[8:12] in _STILL_BRANDS else "video"
    if head.startswith(_STILLS):
        return "still"
    for offset, magic, name in _ARCHIVES:
        if head.startswith(magic, offset):
            raise MediaError(f"is an archive ({name}), which is not opened; unpack it and give the files")
    _refuse_text(head)
    return "video"


def _refuse_text(head: bytes) -> None:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        raise MediaError("is a git-LFS pointer, not the media itself; fetch it with `git lfs pull`")
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<svg")):
        raise MediaError("is a text page (HTML or XML), not media; perhaps a download that failed")
    if start.startswith((b"#extm3u", b"ffconcat", b"[playlist]")):
        raise MediaError("is a playlist that names other files; give those files themselves")
    if b"\0" not in head and _is_text(head):
        raise MediaError("is text, not media")


def _is_text(head: bytes) -> bool:
    printable = sum(byte >= 32 or byte in (9, 10, 12, 13) for byte in head)
    if printable < len(head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 4  # a character cut by the end of what was read
    return True
