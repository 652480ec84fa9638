"""What a decoder process shares with its supervisor: frame slots, a heartbeat, and what it logs.

All of it is nameless memory: no limit of /dev/shm holds for it, and nothing is left when both processes are gone,
however they go.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import re
import signal
import tempfile
import threading
from multiprocessing import reduction
from typing import Any

import numpy as np
import numpy.typing as npt

from tokcli.media.names import one_line

SLOTS = 8
SLOT_BYTES = 8 << 20
_PAGE = 4096
LOG_LINES = 30
_TAIL_BYTES = 8 << 10
_LOG_BYTES = 1 << 20
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+(?=\])")


class NamelessFile:
    """A file without a name, in memory where the system can; it goes along to a spawned process."""

    def __init__(self, num_bytes: int = 0) -> None:
        if hasattr(os, "memfd_create"):
            self.fd = os.memfd_create("tokcli")
        else:
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())
        os.ftruncate(self.fd, num_bytes)

    def __getstate__(self) -> Any:
        return reduction.DupFd(self.fd)

    def __setstate__(self, state: Any) -> None:
        self.fd = state.detach()

    def close(self) -> None:
        """Let go of it; what is mapped stays mapped."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class FrameMemory:
    """Frame slots and the heartbeat of one decoder. Pages that are never written take no memory."""

    def __init__(self) -> None:
        self._file = NamelessFile(_PAGE + SLOTS * SLOT_BYTES)
        self._map()

    def _map(self) -> None:
        memory = mmap.mmap(self._file.fd, _PAGE + SLOTS * SLOT_BYTES)
        self.heartbeat: npt.NDArray[np.uint64] = np.frombuffer(memory, np.uint64, 1)
        """(1,), grows while the decoder gets on."""
        flat = np.frombuffer(memory, np.uint8, offset=_PAGE)
        self.slots: list[npt.NDArray[np.uint8]] = [
            flat[number * SLOT_BYTES : (number + 1) * SLOT_BYTES] for number in range(SLOTS)
        ]

    def __getstate__(self) -> NamelessFile:
        return self._file

    def __setstate__(self, state: NamelessFile) -> None:
        self._file = state
        self._map()
        state.close()

    def close(self) -> None:
        """Let go of it; frames that are still looked at stay readable."""
        self._file.close()


class DecoderLog:
    """All that a decoder process prints, native libraries and a crash included; the last lines outlive it."""

    def __init__(self) -> None:
        self._file = NamelessFile()
        self._lock = threading.Lock()
        self._cut = b""

    def __getstate__(self) -> NamelessFile:
        return self._file

    def __setstate__(self, state: NamelessFile) -> None:
        self._file = state

    def capture(self) -> None:
        """In the decoder: put this in the place of stdout and stderr, and have crashes and SIGUSR1 print the stack."""
        import fcntl

        flags = fcntl.fcntl(self._file.fd, fcntl.F_GETFL)
        fcntl.fcntl(self._file.fd, fcntl.F_SETFL, flags | os.O_APPEND)
        os.dup2(self._file.fd, 1)
        os.dup2(self._file.fd, 2)
        faulthandler.enable(2)
        faulthandler.register(signal.SIGUSR1, 2)

    def clear(self) -> None:
        """Forget what was printed."""
        with self._lock:
            self._cut = b""
            os.ftruncate(self._file.fd, 0)

    def trim(self) -> None:
        """Keep only the end of a log that grew large: a damaged file can make a decoder print without end."""
        with self._lock:
            if self._file.fd >= 0 and os.fstat(self._file.fd).st_size > _LOG_BYTES:
                # A line may be on its way: what is written of it until the file is cut is lost with the rest.
                self._cut = self._end().rpartition(b"\n")[0] + b"\n"
                os.ftruncate(self._file.fd, 0)

    def tail(self) -> str:
        """The last lines, without addresses and control characters."""
        with self._lock:
            end = (self._cut + self._end())[-_TAIL_BYTES:]
        lines = _ADDRESS.sub("", end.decode("utf-8", "backslashreplace")).splitlines()
        return "\n".join([one_line(line.rstrip()) for line in lines if line.strip()][-LOG_LINES:])

    def _end(self) -> bytes:
        size = os.fstat(self._file.fd).st_size
        return os.pread(self._file.fd, _TAIL_BYTES, max(0, size - _TAIL_BYTES))

    @property
    def num_bytes(self) -> int:
        """How much was printed since ``clear`` or the last trim."""
        return os.fstat(self._file.fd).st_size

    def close(self) -> None:
        """Let go of it."""
        with self._lock:
            self._file.close()
