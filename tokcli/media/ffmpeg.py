"""Which FFmpeg PyAV brings, the licence that its libraries report, and how much they print."""

from __future__ import annotations

import sys

_prints = False


def print_messages() -> None:
    """Have FFmpeg print its errors on stderr in this process, loaded already or not."""
    global _prints
    _prints = True
    if "av.logging" in sys.modules:
        set_log_level()


def set_log_level() -> None:
    """What FFmpeg prints by itself: nothing, or errors after ``print_messages``.

    By its own callback: PyAV's goes through Python, which is slow and known to dead-lock.
    """
    import av.logging

    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.ERROR if _prints else av.logging.PANIC)


def ffmpeg_version() -> str:
    """Version of the FFmpeg libraries, e.g. "8.1"."""
    import av

    return str(getattr(av, "ffmpeg_version_info", None) or ".".join(map(str, av.library_versions["libavcodec"])))


def ffmpeg_license() -> str:
    """Licence that libavcodec was configured for; the wheel may bundle encoders under the GPL all the same."""
    from av._core import library_meta

    return str(library_meta["libavcodec"]["license"])
