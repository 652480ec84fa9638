"""All that can be found out about one file, step by step: what `tokcli debug` shows of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from tokcli.media.cut import absent_share
from tokcli.media.limits import Limits
from tokcli.media.reader import DecodeReport, MediaReader, describe_reason, first_bytes, open_media
from tokcli.media.sampling import Sampling
from tokcli.media.sniff import sniff

STEPS = ("file", "sniff", "container", "packets", "frames")
"""In this order; stills have no packets."""

Facts = dict[str, Any]
_SMALL = (32, 32)


def probe(path: str, sampling: Sampling, limits: Limits, decoder: str) -> Iterator[tuple[str, Facts]]:
    """Each step when it is done, with what it found; the values are JSON-able.

    The frames of ``sampling`` are decoded as a run would decode them; with ``Sampling(fps=None)`` that is every frame.

    Raises:
        MediaError: the step after the last one given failed, for the reason that a run would give.
    """
    with describe_reason(path):
        head = first_bytes(path, limits)
        status = os.stat(path)  # noqa: PTH116 - a name with surrogate escapes goes through unchanged
        yield "file", {"bytes": status.st_size, "limit_bytes": limits.max_bytes, "modified_ns": status.st_mtime_ns}
        kind = sniff(head)
        yield "sniff", {"kind": kind, "first_bytes": head[:16].hex(" ")}
        pillow = _picture(path, limits) if kind != "video" else None
        if pillow is not None:
            yield "container", pillow
        else:
            yield from _container(path, limits)
    with open_media(path, sampling=sampling, limits=limits, decoder=decoder, frame_size=lambda info: _SMALL) as reader:
        for _ in reader.chunks(4):
            pass
        yield "frames", _frames(reader)


def _picture(path: str, limits: Limits) -> Facts | None:
    """What Pillow's header tells; None for what is read as video."""
    from tokcli.media.image_pillow import describe_picture

    return describe_picture(path, limits)


def _container(path: str, limits: Limits) -> Iterator[tuple[str, Facts]]:
    from tokcli.media.pyav_index import scan_packets
    from tokcli.media.pyav_source import PyavSource

    report = DecodeReport()
    source = PyavSource(path, limits, report)
    try:
        yield "container", source.describe()
        seen = {"packets": 0, "bytes": 0, "key": 0, "flagged_corrupt": 0}

        def counted() -> Iterator[Any]:
            for packet in source.packets():
                seen["packets"] += 1
                seen["bytes"] += packet.size
                seen["key"] += packet.is_keyframe
                seen["flagged_corrupt"] += packet.is_corrupt
                yield packet

        index = scan_packets(counted(), source.stream, source.bits, limits, report)
        yield (
            "packets",
            {
                **seen,
                "read_errors": report.bad_packets,
                "shown": len(index.line.times),
                "entries": len(index.entries),
                "timed": index.timed,
                "duration_seconds": round(index.line.duration_seconds, 3),
                "frames_per_second": round(index.line.fps, 3),
                "bytes_missing_at_end": round(absent_share(path), 4),
                "warnings": list(report.warnings),
            },
        )
    finally:
        source.close()


def _frames(reader: MediaReader) -> Facts:
    info, report = reader.info, reader.report
    return {
        "planned": reader.planned_frames,
        "decoded": report.decoded_frames,
        "doubtful": report.doubtful_frames,
        "flagged_corrupt": report.corrupt_frames,
        "bad_packets": report.bad_packets,
        "first_bad_seconds": report.first_bad_seconds,
        "width": info.width,
        "height": info.height,
        "orientation": reader.orientation.name,
        "duration_seconds": round(info.duration_seconds, 3),
        "codec": info.codec,
        "decoder": info.decoder,
        "warnings": list(report.warnings),
    }
