"""The peak of this process's memory (Linux)."""

from __future__ import annotations

import re
from pathlib import Path


def peak_bytes() -> int:
    """Most resident memory so far; ``getrusage`` would begin with the parent's."""
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    if found is None:
        raise OSError("/proc/self/status tells no VmHWM")
    return 1024 * int(found[1])
