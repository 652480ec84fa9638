"""Inputs that are no media, change, vanish or explode: each costs itself, and the run goes on.

Everything goes through one run with the real decoder processes, as on an unattended machine.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import struct
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from tokcli.cache import open_cache
from tokcli.errors import MediaError
from tokcli.media import Limits, Sampling, hash_if_readable, open_media, scan_inputs, write_video
from tokcli.pipeline.compress import Run, compress
from tokcli.recipe import CompressRecipe


def run(inputs: list[Path | str], cache: Path, **how: Any) -> Any:
    recipe = CompressRecipe(inputs=[str(path) for path in inputs], output=str(cache), method="none", workers=1, **how)
    return compress(recipe)


def errors(cache: Path) -> dict[str, dict[str, Any]]:
    return {Path(row["path"]).name: row for row in open_cache(cache).errors().to_pylist()}


def flat_png(path: Path, side: int) -> None:
    """A black picture of side x side pixels in a file of a few kilobytes: rows are compressed as they are made."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    row = bytes(1 + side // 8)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))


def gif(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("P", (8, 8)).save(stream, "GIF")
    data = bytearray(stream.getvalue())
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def webp(width: int, height: int) -> bytes:
    """A lossless WebP of eight by eight pixels whose header tells another size."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "WEBP", lossless=True)
    data = bytearray(stream.getvalue())
    at = data.index(b"VP8L") + 9  # behind the chunk's size and the signature
    (bits,) = struct.unpack_from("<I", data, at)
    struct.pack_into("<I", data, at, bits >> 28 << 28 | (height - 1) << 14 | (width - 1))
    return bytes(data)


def with_samples(source: Path, count: int) -> bytes:
    """An MP4 whose table of sample sizes says that there are ``count`` samples, all of one size."""
    data = source.read_bytes()
    at = data.index(b"stsz") + 4
    return data[: at + 4] + struct.pack(">II", 64, count) + data[at + 12 :]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.mp4"
    frames = (np.full((64, 96, 3), number * 8, np.uint8) for number in range(20))
    write_video(path, frames, 5, container_options={"movflags": "faststart"})
    return path


def test_what_lies_in_a_folder_of_unknown_origin(good: Path, tmp_path: Path) -> None:
    folder, cache = tmp_path / "media", tmp_path / "cache"
    folder.mkdir()
    shutil.copy(good, folder / "a\nb.mp4")
    shutil.copy(good, os.fsencode(folder) + b"/caf\xe9\xff.mp4")
    (folder / "parent").symlink_to("..")
    (folder / "itself.mp4").symlink_to("itself.mp4")
    (folder / "gone.mp4").symlink_to("/nowhere/at/all")
    (folder / "zero.mp4").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.mp4")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "socket.mp4"))
    with zipfile.ZipFile(folder / "zip.mp4", "w") as archive:
        archive.write(good, "good.mp4")
    with tarfile.open(folder / "tar.mp4", "w") as archive:
        archive.add(good, "good.mp4")
    with tarfile.open(folder / "tgz.mp4", "w:gz") as archive:
        archive.add(good, "good.mp4")
    summary = run([folder], cache)
    listening.close()
    found = errors(cache)
    assert summary.done == 2 and summary.done + summary.failed == summary.items
    words = {
        "itself.mp4": "symbolic links",
        "gone.mp4": "link to a file that is missing",
        "zero.mp4": "not a plain file",
        "pipe.mp4": "not a plain file",
        "socket.mp4": "not a plain file",
        "zip.mp4": "is an archive (zip), which is not opened; unpack it",
        "tar.mp4": "archive (tar)",
        "tgz.mp4": "archive (gzip)",
    }
    assert set(found) == set(words)
    for name, word in words.items():
        assert word in found[name]["message"], name
        assert "\n" not in found[name]["message"]
    assert (cache / "_SUCCESS").exists()


def test_decompression_bombs_are_refused_by_their_headers(good: Path, tmp_path: Path) -> None:
    folder, cache = tmp_path / "media", tmp_path / "cache"
    folder.mkdir()
    flat_png(folder / "flat.png", 30_000)
    (folder / "flat.gif").write_bytes(gif(30_000, 30_000))
    (folder / "flat.webp").write_bytes(webp(16_000, 16_000))
    shutil.copy(good, folder)
    before = psutil.Process().memory_info().rss
    summary = run([folder], cache)
    assert (summary.done, summary.failed) == (1, 3)
    for name, row in errors(cache).items():
        assert "--limit-pixels" in row["message"], (name, row["message"])
        assert row["stage"] == "open"
    assert psutil.Process().memory_info().rss - before < 1 << 30


def test_a_header_that_claims_two_billion_frames(good: Path, tmp_path: Path) -> None:
    path, cache = tmp_path / "many.mp4", tmp_path / "cache"
    path.write_bytes(with_samples(good, 2**31 - 1))
    summary = run([path, good], cache, decoder_memory="1GiB")
    assert (summary.done, summary.failed) == (1, 1)
    (row,) = errors(cache).values()
    assert row["error_class"] in ("MemoryLimit", "MediaError", "Damaged"), row


def test_limit_bytes(good: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    shutil.copy(good, large)
    with large.open("ab") as file:
        file.truncate(3 << 40)  # a hole: it takes no space, and reading it would take an hour
    summary = run([large, good], tmp_path / "cache")
    assert (summary.done, summary.failed) == (1, 1)
    assert "--limit-bytes" in errors(tmp_path / "cache")["large.mp4"]["message"]
    assert run([good], tmp_path / "small", limits={"max_bytes": 1000}).failed == 1


@pytest.mark.parametrize("becomes", ["nothing", "a pipe", "a folder"])
def test_files_that_vanish_or_change_under_the_run(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    """Between the scan and the work; the second run also wants to hash it, because its times changed."""
    folder, cache = tmp_path / "media", tmp_path / "cache"
    folder.mkdir()
    victim = folder / "victim.mp4"
    shutil.copy(good, victim)
    shutil.copy(good, folder / "other.mp4")
    assert run([folder], cache).done == 2
    os.utime(victim, ns=(1, 1))
    begin = Run.run

    def replaced(self: Run) -> None:
        victim.unlink()
        if becomes == "a pipe":
            os.mkfifo(victim)
        elif becomes == "a folder":
            victim.mkdir()
        begin(self)

    monkeypatch.setattr(Run, "run", replaced)
    summary = run([folder], cache)
    assert (summary.done, summary.skipped, summary.failed) == (0, 1, 1)
    assert "victim.mp4" in errors(cache)["victim.mp4"]["message"]


def test_what_may_not_be_read(good: Path) -> None:
    """In this process, as somebody else where the tests run as root: root may read everything."""
    with tempfile.TemporaryDirectory() as name:  # below folders that everybody may enter
        folder = Path(name)
        folder.chmod(0o755)
        for file, mode in {"open.mp4": 0o644, "locked.mp4": 0}.items():
            shutil.copy(good, folder / file)
            (folder / file).chmod(mode)
        (folder / "closed").mkdir(mode=0)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            found = scan_inputs([name])
            assert [Path(item.path).name for item in found.items] == ["locked.mp4", "open.mp4"]
            (failure,) = found.failures
            assert failure.id.endswith("closed") and "Permission denied" in failure.message
            with open_media(str(folder / "open.mp4"), sampling=Sampling(), limits=Limits()) as reader:
                assert reader.info.num_frames == 4
            with pytest.raises(MediaError, match=r"locked\.mp4: cannot be read: Permission denied"):
                open_media(str(folder / "locked.mp4"), sampling=Sampling(), limits=Limits())
            assert hash_if_readable(str(folder / "locked.mp4")) == ""
        finally:
            if root:
                os.seteuid(0)


def test_folders_linked_to_each_other_are_walked_once(good: Path, tmp_path: Path) -> None:
    """Ten folders, each with links to all ten, have millions of paths; thousands of levels exceed any recursion."""
    top = tmp_path / "web"
    for number in range(10):
        (top / str(number)).mkdir(parents=True)
        shutil.copy(good, top / str(number) / "a.mp4")
    for number in range(10):
        for other in range(10):
            (top / str(number) / f"to{other}").symlink_to(top / str(other))
    deep = top / "deep"
    deep.mkdir()
    descriptor = os.open(deep, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=descriptor)
        descriptor, above = os.open("d", os.O_RDONLY, dir_fd=descriptor), descriptor
        os.close(above)
    os.close(descriptor)
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(good, outside / "b.mp4")
    (top / "0" / "out").symlink_to(outside)
    result = scan_inputs([str(top)])
    subprocess.run(["rm", "-rf", str(deep)], check=True)  # too deep for Python's own
    names = [str(Path(item.path).relative_to(top)) for item in result.items]
    assert names == ["0/a.mp4", "0/out/b.mp4", *(f"{number}/a.mp4" for number in range(1, 10))]
    assert not result.failures
