"""Named moments in the life of a cache at which a test may end the process, as ``kill -9`` or a power cut would.

``TOKCLI_FAULT=shard.after_rename`` kills at that moment, ``shard.after_rename:3`` the third time that it comes.
``docs/guarantees.md`` tells for each what is on disk then and what the next run does; tests hold every row of it.
"""

from __future__ import annotations

import os
import signal

POINTS = (
    "manifest.before_write",
    "manifest.after_fsync",
    "manifest.after_rename",
    "shard.before_temporary",
    "shard.after_pages",
    "shard.before_fsync",
    "shard.after_fsync",
    "shard.after_rename",
    "shard.after_folder_fsync",
    "commit.between_tables",
    "part.before_last_look",
    "success.before_write",
    "success.after_fsync",
    "success.after_rename",
    "open.before_removing_success",
    "open.after_removing_success",
    "overwrite.before_deletion",
    "overwrite.after_deletion",
    "rewrite.before_deletion",
    "rewrite.after_deletion",
    "repair.before_removing_success",
    "repair.before_move",
    "repair.after_move",
)

_armed: list[str | int] = []
"""The moment and how many more times it has to come; empty outside tests, and then nothing else is looked at."""


def arm(text: str) -> None:
    """Make ``fault_point`` kill this process at ``NAME`` or ``NAME:TIMES``. Raises ``ValueError`` for another name."""
    name, _, times = text.partition(":")
    if name not in POINTS:
        raise ValueError(f"TOKCLI_FAULT={text!r} names no moment; known: {', '.join(POINTS)}")
    _armed[:] = [name, int(times or 1)]


def fault_point(name: str) -> None:
    """Die here if this moment was asked for: no handler runs, no buffer is written."""
    if _armed and _armed[0] == name:
        _armed[1] = int(_armed[1]) - 1
        if _armed[1] == 0:
            os.kill(os.getpid(), signal.SIGKILL)


if "TOKCLI_FAULT" in os.environ:
    arm(os.environ["TOKCLI_FAULT"])
