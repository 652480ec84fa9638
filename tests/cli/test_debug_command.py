"""`tokcli debug`: what it says of sound, damaged, hostile and missing files."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokcli.media import STEPS

Tokcli = Callable[..., Any]


def document(tokcli: Tokcli, path: Path | str, *arguments: object) -> tuple[int, dict[str, Any]]:
    result = tokcli("debug", path, "--json", *arguments)
    return result.code, result.document


def test_a_sound_video(tokcli: Tokcli, clips: Path) -> None:
    path = next(clips.glob("*.mp4"))
    code, found = document(tokcli, path)
    assert (code, found["sound"], found["reason"], found["failed_step"]) == (0, True, None, None)
    assert list(found["steps"]) == list(STEPS)
    packets, frames = found["steps"]["packets"], found["steps"]["frames"]
    assert found["steps"]["file"]["bytes"] == path.stat().st_size
    assert packets["packets"] == frames["planned"] == frames["decoded"] == _count(path)
    assert packets["key"] >= 1 and packets["read_errors"] == packets["flagged_corrupt"] == 0
    assert found["steps"]["container"]["codec"] == "h264"
    shown = tokcli("debug", path)
    assert shown.code == 0 and shown.stdout.rstrip().endswith(": sound")


def _count(path: Path) -> int:
    """What the ffprobe program counts, where it is installed."""
    if shutil.which("ffprobe") is None:
        import av

        with av.open(str(path)) as container:
            return sum(1 for _ in container.decode(video=0))
    command = ["ffprobe", "-v", "error", "-count_packets", "-select_streams", "v:0"]
    command += ["-show_entries", "stream=nb_read_packets", "-of", "csv=p=0", str(path)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_damaged_video(tokcli: Tokcli, clips: Path, tmp_path: Path) -> None:
    data = bytearray(next(clips.glob("*.mp4")).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path = tmp_path / "rotten.mp4"
    path.write_bytes(data)
    code, found = document(tokcli, path)
    assert (code, found["sound"], found["failed_step"], found["error_class"]) == (3, False, "frames", "Damaged")
    frames = found["steps"]["frames"]
    assert frames["decoded"] - frames["doubtful"] < frames["planned"]
    assert 0 < frames["first_bad_seconds"] < frames["duration_seconds"]
    assert any("[h264]" in line for line in found["log"])
    shown = tokcli("debug", path)
    assert shown.code == 3 and "frames: Damaged: " in shown.stdout


def test_what_cannot_be_opened_says_where_it_fails(tokcli: Tokcli, clips: Path, tmp_path: Path) -> None:
    good = next(clips.glob("*.mp4"))
    cases = {
        "cut.mp4": (good.read_bytes()[:300], "container", "cannot be opened as a video"),
        "page.jpg": (b"<html>not found</html>", "sniff", "HTML"),
        "empty.mp4": (b"", "file", "is empty"),
        "archive.mp4": (b"PK\x03\x04" + bytes(60), "sniff", "archive (zip)"),
    }
    for name, (content, step, reason) in cases.items():
        (tmp_path / name).write_bytes(content)
        code, found = document(tokcli, tmp_path / name)
        assert (code, found["failed_step"]) == (3, step), name
        assert reason in found["reason"]
    os.mkfifo(tmp_path / "pipe.mp4")
    for name, reason in {"pipe.mp4": "not a plain file", "none.mp4": "does not exist"}.items():
        code, found = document(tokcli, tmp_path / name)
        assert (code, found["failed_step"]) == (3, "file")
        assert reason in found["reason"]
    code, found = document(tokcli, good, "--limit-bytes", "1kB")
    assert (code, found["failed_step"]) == (3, "file") and "--limit-bytes" in found["reason"]


def test_bad_options(tokcli: Tokcli, clips: Path) -> None:
    path = next(clips.glob("*.mp4"))
    assert "vlc" in tokcli("debug", path, "--decoder", "vlc").error
    assert "--decoder-memory must be at least 512 MiB" in tokcli("debug", path, "--decoder-memory", "2kB").error


@pytest.mark.media
@pytest.mark.timeout(1200)
@pytest.mark.long
def test_every_real_file(tokcli: Tokcli, real_media: Path) -> None:
    sound = set()
    for path in sorted(real_media.glob("*/*")):
        code, found = document(tokcli, path)
        assert code == (0 if found["sound"] else 3)
        assert found["sound"] or (found["reason"] and found["failed_step"] in STEPS), path
        if found["sound"]:
            sound.add(path.parent.name + "/" + path.name)
    healthy = {
        path.parent.name + "/" + path.name for folder in ("video", "image") for path in (real_media / folder).iterdir()
    }
    assert {name for name in healthy - sound if not name.endswith(".heic")} == set()
    assert "corrupt/decord__corrupted.mp4" not in sound


def test_sizes_and_times_are_for_people(tokcli: Tokcli, tmp_path: Path) -> None:
    path = tmp_path / "nothing.mp4"
    path.write_bytes(b"nothing")
    os.utime(path, (1_795_758_108.9, 1_795_758_108.9))
    result = tokcli("debug", path)
    assert result.code == 3
    facts = [line.split() for line in result.stdout.splitlines()]
    assert ["file", "bytes", "7"] in facts
    assert ["modified", "2026-11-27", "05:41:48", "UTC"] in facts
    assert document(tokcli, path)[1]["steps"]["file"]["modified_ns"] // 10**9 == 1_795_758_108
