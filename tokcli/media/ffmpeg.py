"""Which FFmpeg PyAV brings, and the licence that its libraries report."""

from __future__ import annotations


def ffmpeg_version() -> str:
    """Version of the FFmpeg libraries, e.g. "8.1"."""
    import av

    return str(getattr(av, "ffmpeg_version_info", None) or ".".join(map(str, av.library_versions["libavcodec"])))


def ffmpeg_license() -> str:
    """Licence that libavcodec was configured for; the wheel may bundle encoders under the GPL all the same."""
    from av._core import library_meta

    return str(library_meta["libavcodec"]["license"])
