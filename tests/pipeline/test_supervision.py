"""Decoders that stall, grow, fork, crash or flood: killed with all that they started, and their last words kept.

What a decoder does wrong here is done by the function that gives the frame size: it runs inside the decoder process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
from test_decoder_pool import SETTINGS, item, until, wait_idle

from tokcli.pipeline.decoder import LONGEST_TICK_SECONDS, Supervision
from tokcli.pipeline.decoder_pool import DecoderPool
from tokcli.pipeline.messages import Chunk, Failed, Finished, Opened
from tokcli.pipeline.shared import DecoderLog
from tokcli.types import MediaInfo

LIGHT = replace(SETTINGS, resize_in_decoder=True)  # without torch a decoder starts in a second
GB = 1 << 30
STEADY = Supervision(timeout=1000.0, heartbeat=1000.0)


def hang(info: MediaInfo) -> tuple[int, int]:
    time.sleep(1000)
    raise AssertionError


def grow(info: MediaInfo) -> tuple[int, int]:
    held = []
    while True:
        held.append(b"x" * (32 << 20))
        time.sleep(0.01)


def fork(report: Path, then: Callable[[MediaInfo], tuple[int, int]], info: MediaInfo) -> tuple[int, int]:
    # With all file descriptors: also with the pipe to the supervisor, which then stays open when the decoder dies.
    process = subprocess.Popen(["sleep", "1000"], close_fds=False)
    report.write_text(str(process.pid))
    return then(info)


def abort(info: MediaInfo) -> tuple[int, int]:
    os.write(2, b"[h264 @ 0x55d0c0ffee00] all is \xff lost\n")
    os.abort()


def flood(info: MediaInfo) -> tuple[int, int]:
    line = b"[h264 @ 0x55d0c0ffee00] error while decoding MB 3 4, bytestream -7\n" * 1000
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        os.write(1, line)
    raise ValueError("enough")


def failure(pool: DecoderPool, path: Path, settings: object, seconds: float = 120) -> Failed:
    pool.configure(replace(LIGHT, frame_size=settings))  # type: ignore[arg-type]
    decoder = wait_idle(pool)
    decoder.assign(item(path), 1)
    failed = until(pool, Failed, Finished, seconds=seconds)[-1]
    assert isinstance(failed, Failed), failed
    return failed


def good(pool: DecoderPool, path: Path) -> bool:
    """Whether the pool goes on as if nothing had happened."""
    wait_idle(pool)
    pool.configure(LIGHT)
    wait_idle(pool).assign(item(path), 1)
    return isinstance(until(pool, Finished, Failed)[-1], Finished)


@pytest.fixture
def clip(clips: Path) -> Path:
    return next(clips.glob("*.mp4"))


def gone(pid: int) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_no_progress_ends_it_though_the_deadline_is_far(clip: Path) -> None:
    with DecoderPool(1, Supervision(timeout=1000.0, heartbeat=2.0)) as pool:
        failed = failure(pool, clip, hang, seconds=60)
        assert (failed.error_class, failed.stage, failed.retry) == ("Timeout", "open", False)
        assert "--heartbeat" in failed.message
        # It was asked where it is before it was killed.
        assert "in hang" in failed.log_tail
        assert good(pool, clip)


def test_a_stop_in_the_middle_of_a_file_is_seen(clip: Path) -> None:
    with DecoderPool(1, Supervision(timeout=1000.0, heartbeat=2.0)) as pool:
        pool.configure(LIGHT)
        decoder = wait_idle(pool)
        decoder.assign(item(clip), 1)
        until(pool, Opened, release=False)
        os.kill(decoder.process.pid, signal.SIGSTOP)
        while decoder.lent:  # from here on it could work
            decoder.lent -= 1
        failed = until(pool, Failed, seconds=60)[-1]
        assert isinstance(failed, Failed)
        assert (failed.error_class, failed.stage) == ("Timeout", "decode")
        assert "--heartbeat" in failed.message


def test_frames_that_come_are_a_heartbeat(clip: Path) -> None:
    """A file that takes several heartbeats as a whole is let through: each frame begins a new one."""
    with DecoderPool(1, STEADY) as pool:
        pool.configure(LIGHT)
        decoder = wait_idle(pool)
        before = int(decoder.memory.heartbeat[0])
        decoder.assign(item(clip), 1)
        messages = until(pool, Finished, Failed)
        assert isinstance(messages[-1], Finished)
        frames = sum(message.shape[0] for message in messages if isinstance(message, Chunk))
        assert int(decoder.memory.heartbeat[0]) - before >= 3 * frames  # packets seen twice, frames
        assert decoder.silent < 1.0


def test_what_the_supervisor_takes_is_not_charged_to_the_file(clip: Path) -> None:
    with DecoderPool(1, STEADY) as pool:
        pool.configure(replace(LIGHT, frame_size=hang))
        decoder = wait_idle(pool)
        decoder.assign(item(clip), 1)
        decoder.since -= 500.0  # as if the loop had been busy for so long
        assert decoder.overdue() is None
        assert decoder.worked <= LONGEST_TICK_SECONDS


@pytest.mark.parametrize("then", [hang, abort])
def test_what_a_decoder_started_ends_with_it(clip: Path, tmp_path: Path, then: Callable[..., object]) -> None:
    """Killed or crashed: a child that holds the pipes neither hides the death nor outlives it."""
    report = tmp_path / "pid"
    with DecoderPool(1, Supervision(timeout=1000.0, heartbeat=3.0)) as pool:
        failed = failure(pool, clip, partial(fork, report, then), seconds=60)
        assert failed.error_class == ("Timeout" if then is hang else "DecoderCrash")
        assert gone(int(report.read_text()))
        assert good(pool, clip)


def test_decoders_are_in_sessions_of_their_own(clip: Path) -> None:
    with DecoderPool(1, STEADY) as pool:
        pool.configure(LIGHT)
        pid = wait_idle(pool).process.pid
        assert os.getsid(pid) == os.getpgid(pid) == pid != os.getpgid(0)


def test_memory_is_watched_while_it_decodes(clip: Path) -> None:
    with DecoderPool(1, Supervision(timeout=1000.0, heartbeat=1000.0, memory_bytes=GB)) as pool:
        failed = failure(pool, clip, grow)
        assert failed.error_class == "MemoryLimit"
        assert not failed.retry, "a fresh process: the memory was taken for this file"
        assert "over the limit of 1.0 GiB; raise it with --decoder-memory" in failed.message
        assert good(pool, clip)
        # Of a process that did others before, the leak may have been theirs.
        assert failure(pool, clip, grow).retry


def test_the_last_words_of_a_crash_are_kept(clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with DecoderPool(1, STEADY) as pool:
        failed = failure(pool, clip, abort)
    assert failed.retry
    assert "SIGABRT" in failed.message
    lines = failed.log_tail.splitlines()
    assert lines[0] == "[h264] all is \\xff lost"
    assert "Fatal Python error: Aborted" in failed.log_tail and "in abort" in failed.log_tail
    assert capfd.readouterr() == ("", ""), "decoders print nothing on the terminal"


def test_what_ffmpeg_says_is_in_the_failure(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(clip.read_bytes()[:300])
    with DecoderPool(1, STEADY) as pool:
        pool.configure(LIGHT)
        decoder = wait_idle(pool)
        for _ in range(2):  # each file has its own messages only
            decoder.assign(item(path), 1)
            failed = until(pool, Failed, Finished)[-1]
            assert isinstance(failed, Failed)
            assert failed.log_tail.count("moov atom not found") == 1, failed.log_tail
            wait_idle(pool)


def test_a_line_on_its_way_is_not_kept_half() -> None:
    log = DecoderLog()
    os.write(log._file.fd, b"[h264] a whole line\n" * 100_000 + b"[h264] a wh")
    log.trim()
    assert log.num_bytes == 0
    os.pwrite(log._file.fd, b"[h264] a whole line\n", 0)
    assert set(log.tail().splitlines()[1:]) == {"[h264] a whole line"}
    log.close()


def test_a_flood_of_messages_costs_nothing(clip: Path) -> None:
    before = psutil.Process().memory_info().rss
    with DecoderPool(1, STEADY) as pool:
        decoder = pool.decoders[0]
        largest = 0
        pool.configure(replace(LIGHT, frame_size=flood))
        wait_idle(pool).assign(item(clip), 1)
        failed = None
        while failed is None:
            largest = max(largest, decoder.log.num_bytes)
            failed = next((event.message for event in pool.poll(0.01) if isinstance(event.message, Failed)), None)
        assert failed.message == "enough"
        assert set(failed.log_tail.splitlines()[1:]) == {"[h264] error while decoding MB 3 4, bytestream -7"}
        assert decoder.log.num_bytes < 256 << 20
    assert psutil.Process().memory_info().rss - before < 64 << 20


def test_decoders_die_with_their_supervisor() -> None:
    code = (
        "import sys, time; from tokcli.pipeline.decoder import Supervision;"
        "from tokcli.pipeline.decoder_pool import DecoderPool\n"
        "if __name__ == '__main__':\n"
        "    pool = DecoderPool(2, Supervision())\n"
        "    print(*[decoder.process.pid for decoder in pool.decoders], flush=True)\n"
        "    time.sleep(1000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2
    process.kill()
    process.wait()
    process.stdout.close()
    assert all(gone(pid) for pid in pids)
