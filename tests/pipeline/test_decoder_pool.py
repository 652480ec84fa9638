"""Decoder processes that die, hang or cannot open a file: each costs one item and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tokcli.media import Limits, Sampling
from tokcli.models.sizing import PixelBounds, Sizer
from tokcli.pipeline.decoder import Decoder, Event, Supervision
from tokcli.pipeline.decoder_pool import DecoderPool
from tokcli.pipeline.messages import Chunk, DecodeSettings, Failed, Finished, Message, Opened
from tokcli.pipeline.shared import SLOTS
from tokcli.storage.scratch import PREFIX, remove_stale
from tokcli.types import MediaItem

BOUNDS = PixelBounds(min_pixels=112 * 112, max_pixels=224 * 224)
SETTINGS = DecodeSettings(
    sampling=Sampling(fps=4.0),
    limits=Limits(),
    decoder="auto",
    frame_size=partial(Sizer(14, 2, 2, BOUNDS, BOUNDS), scale=1.0),
    resample="bicubic",
    resize_in_decoder=False,
    frames_per_step=2,
    max_steps=1,
)


@pytest.fixture
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(1, Supervision()) as pool:
        pool.configure(SETTINGS)
        yield pool


def item(path: Path) -> MediaItem:
    return MediaItem(str(path), str(path), path.stat().st_size if path.exists() else 0, 0)


def wait_idle(pool: DecoderPool) -> Decoder:
    until = time.monotonic() + 60
    while not pool.idle():
        list(pool.poll(0.2))
        assert time.monotonic() < until, "the decoder process never became ready"
    return pool.idle()[0]


def until(pool: DecoderPool, *kinds: type, release: bool = True, seconds: float = 60) -> list[Message]:
    """Messages up to and with the first of one of the kinds."""
    seen: list[Message] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for event in pool.poll(0.2):
            seen.append(event.message)
            if release:
                event.release()
        if any(isinstance(message, kinds) for message in seen):
            return seen
    raise AssertionError(f"no {kinds} within {seconds} s, only {seen}")


def test_one_item_after_the_other(pool: DecoderPool, clips: Path) -> None:
    for path in sorted(clips.glob("*.mp4")):
        decoder = wait_idle(pool)
        decoder.assign(item(path), 1)
        messages = until(pool, Finished, Failed)
        opened = messages[0]
        assert isinstance(opened, Opened)
        assert isinstance(messages[-1], Finished)
        frames = sum(message.shape[0] for message in messages if isinstance(message, Chunk))
        assert frames == opened.info.num_frames


def test_a_fast_decoder_waits_for_the_encoder(pool: DecoderPool, clips: Path) -> None:
    decoder = wait_idle(pool)
    decoder.assign(item(next(clips.glob("*.mp4"))), 1)
    chunks: list[Event] = []
    end = time.monotonic() + 3
    while time.monotonic() < end:
        chunks += [event for event in pool.poll(0.2) if isinstance(event.message, Chunk)]
    assert len(chunks) == SLOTS, "nothing more than the slots may be on the way"
    assert not decoder.working
    worked = decoder.worked
    decoder.overdue()
    assert decoder.worked == worked, "waiting for the encoder must not count against the file"
    for chunk in chunks:
        chunk.release()
    assert isinstance(until(pool, Finished, Failed)[-1], Finished)


def test_a_missing_file_is_one_failure(pool: DecoderPool, tmp_path: Path) -> None:
    decoder = wait_idle(pool)
    decoder.assign(item(tmp_path / "none.mp4"), 1)
    failed = until(pool, Failed)[-1]
    assert isinstance(failed, Failed)
    assert "none.mp4" in failed.message
    assert not failed.retry


def test_a_crash_is_retried_in_a_fresh_process(pool: DecoderPool, clips: Path) -> None:
    decoder = wait_idle(pool)
    first = decoder.process.pid
    decoder.assign(item(next(clips.glob("*.mp4"))), 1)
    until(pool, Opened, release=False)  # waits for a buffer, so it is in the middle of the file
    os.kill(first, signal.SIGSEGV)
    failed = until(pool, Failed)[-1]
    assert isinstance(failed, Failed)
    assert failed.retry
    assert "SIGSEGV" in failed.message
    assert decoder.item is None
    again = wait_idle(pool)
    assert again.process.pid != first
    again.assign(item(next(clips.glob("*.mp4"))), 2)
    assert isinstance(until(pool, Finished, Failed)[-1], Finished)


def test_a_process_that_dies_idle_costs_nothing(pool: DecoderPool, clips: Path) -> None:
    decoder = wait_idle(pool)
    decoder.process.kill()
    decoder.process.join()
    decoder.assign(item(next(clips.glob("*.mp4"))), 1)
    failed = until(pool, Failed)[-1]
    assert isinstance(failed, Failed)
    assert failed.retry
    wait_idle(pool).assign(item(next(clips.glob("*.mp4"))), 2)
    assert isinstance(until(pool, Finished, Failed)[-1], Finished)


def test_a_hang_ends_at_the_deadline(clips: Path) -> None:
    with DecoderPool(1, Supervision(timeout=5.0)) as pool:
        pool.configure(SETTINGS)
        decoder = wait_idle(pool)
        pid = decoder.process.pid
        os.kill(pid, signal.SIGSTOP)
        decoder.assign(item(next(clips.glob("*.mp4"))), 1)
        failed = until(pool, Failed, seconds=20)[-1]
        assert isinstance(failed, Failed)
        assert failed.error_class == "Timeout"
        assert not failed.retry
        assert not psutil.pid_exists(pid)
        wait_idle(pool).assign(item(next(clips.glob("*.mp4"))), 1)
        assert isinstance(until(pool, Finished, Failed)[-1], Finished)


def test_no_process_outlives_the_pool(clips: Path) -> None:
    pool = DecoderPool(2, Supervision())
    pids = [decoder.process.pid for decoder in pool.decoders]
    pool.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_script_that_is_not_guarded_runs_once(tmp_path: Path) -> None:
    """Neither the decoders nor what they are forked from load the main module, whatever it would do then."""
    script = tmp_path / "script.py"
    script.write_text(
        "print('begins', flush=True)\n"
        "from tokcli.pipeline.decoder import Supervision\n"
        "from tokcli.pipeline.decoder_pool import DecoderPool\n"
        "for alone in (False, True):\n"
        "    with DecoderPool(1, Supervision(), alone=alone) as pool:\n"
        "        (decoder,) = pool.decoders\n"
        "        before = decoder.process.pid\n"
        "        decoder.replace()\n"
        "        print(before != decoder.process.pid)\n"
        "print(__spec__, __file__)\n"
    )
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["begins", "True", "True", f"None {script}"]
    assert result.stderr == ""


@pytest.mark.parametrize("depth", [0, 3])
def test_what_a_killed_run_leaves_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    """Also where a name in the folder for temporary files is too long for a socket."""
    folder = tmp_path.joinpath(*["a-long-name-of-a-folder" * 4] * depth)
    folder.mkdir(parents=True, exist_ok=True)
    code = (
        "import os\n"
        "from tokcli.pipeline.decoder import Supervision\n"
        "from tokcli.pipeline.decoder_pool import DecoderPool\n"
        "DecoderPool(1, Supervision())\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(folder)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name.startswith(PREFIX) for path in folder.iterdir()] == [True]  # none of Python's own
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert remove_stale() == 1
    assert list(folder.iterdir()) == []


def test_a_system_without_what_decoders_need_is_told_so() -> None:
    """Windows has neither module; tokcli is tried on none, so it says what it needs."""
    script = (
        "import sys, filelock, psutil, torch; sys.modules['resource'] = sys.modules['fcntl'] = None\n"
        "from tokcli.pipeline.compress import compress\n"
        "from tokcli.pipeline.decoder_pool import DecoderPool\n"
        "from tokcli.pipeline.decoder import Supervision\n"
        "sys.platform = 'win32'\n"
        "try:\n    DecoderPool(1, Supervision())\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.startswith("UsageError") and "Linux or macOS" in done.stdout, done.stderr
