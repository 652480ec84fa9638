"""Standard streams that are closed, or whose disk is full, as under a scheduler at night: no reason to stop a run."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tokcli.cache import open_cache, verify_cache

COMMAND = f"exec {sys.executable} -m tokcli.cli.app"


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", f"{COMMAND} {line}"], capture_output=True, text=True, check=False)


@pytest.fixture
def media(clips: Path, tmp_path: Path) -> Path:
    """A clip, and a file that is none and of which the decoder has something to say."""
    folder = tmp_path / "media"
    folder.mkdir()
    clip = next(clips.glob("static*"))
    (folder / clip.name).write_bytes(clip.read_bytes())
    (folder / "bad.mp4").write_bytes(clip.read_bytes()[:2000])
    return folder


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_run_without_standard_streams_does_its_work(media: Path, tmp_path: Path, closed: str) -> None:
    cache = tmp_path / "cache"
    done = shell(f"compress '{media}' -o '{cache}' --num-workers 1 {closed}")
    assert done.returncode == 3, done.stderr
    opened = open_cache(cache)
    assert (opened.complete, len(opened), len(opened.errors()), verify_cache(cache)) == (True, 1, 1, [])


needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")


@needs_full
def test_a_full_disk_behind_the_log_does_not_stop_a_run(media: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert shell(f"compress '{media}' -o '{cache}' --num-workers 1 2>/dev/full").returncode == 3
    assert open_cache(cache).complete


def test_a_terminal_that_is_gone_does_not_stop_a_run(media: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    ours, terminal = pty.openpty()
    run = [sys.executable, "-m", "tokcli.cli.app", "compress", media, "-o", cache, "--num-workers", "1"]
    with subprocess.Popen(run, stderr=terminal, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        os.close(terminal)
        assert os.read(ours, 1)  # it has begun to write there
        os.close(ours)
    assert process.returncode == 3
    assert open_cache(cache).complete


@needs_full
@pytest.mark.parametrize("command", ["methods", "methods --json"])
def test_a_list_that_cannot_be_written_is_a_failure_in_one_line(command: str) -> None:
    done = shell(f"{command} >/dev/full")
    assert done.returncode == 1
    assert done.stderr == "error: cannot write to stdout: No space left on device\n"
