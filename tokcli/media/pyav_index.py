"""A video's packet times, read by demuxing alone: what sampling is planned on."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from tokcli.errors import MediaError
from tokcli.media.bitstream import Bitstream
from tokcli.media.limits import Limits
from tokcli.media.reader import DecodeReport
from tokcli.media.sampling import Ticks, Timeline, timeline

_USUAL_RATE = Fraction(25)
_HIGHEST_RATE = 1000
REORDER_LIMIT = 32
"""No codec shows a picture more than 16 places from where it is decoded; two fields each may have a packet."""


@dataclass(frozen=True)
class PacketIndex:
    """Packets of one stream in the order in which they are decoded; empty ones are left out."""

    line: Timeline
    """Times of the frames that will be shown."""
    timed: bool
    """False when the packets' times are missing or make no sense, and frames are counted out at a constant rate."""
    times: Ticks
    """int64 (P,): presentation time of each packet."""
    entries: Ticks
    """int64 (E,), increasing: packets at which decoding can start with the same result."""
    first: tuple[int | None, int | None, int]
    """(pts, dts, size) of the first packet: tells whether a rewind led back to the start."""
    damaged: bool
    """Whether the demuxer met errors or packets flagged as damaged."""


def scan_packets(packets: Any, stream: Any, bits: Bitstream, limits: Limits, report: DecodeReport) -> PacketIndex:
    """Read all packets of ``stream`` (PyAV) once; stops as soon as a limit is passed.

    Raises:
        MediaError: no packets, or over a limit.
    """
    unit = Fraction(stream.time_base)
    rate = stream.average_rate or stream.guessed_rate or _USUAL_RATE
    times: list[int | None] = []
    shown: list[int] = []
    entries: list[int] = []
    first: tuple[int | None, int | None, int] | None = None
    last: tuple[int, int | None] | None = None
    lowest: int | None = None
    damaged = False
    hides = bits.codec in ("vp8", "vp9")
    for packet in packets:
        time = packet.pts if packet.pts is not None else packet.dts
        if first is None:
            first = (packet.pts, packet.dts, packet.size)
        damaged = damaged or packet.is_corrupt
        if packet.is_keyframe and bits.is_entry(memoryview(packet)):
            entries.append(len(times))
        if not packet.is_discard and not (hides and bits.is_hidden(memoryview(packet))):
            shown.append(len(times))
            if time is not None:
                lowest = time if lowest is None else min(lowest, time)
                limits.check_seconds(float((time - lowest) * unit))
                if last is None or time >= last[0]:
                    last = (time, packet.duration)
        times.append(time)
        limits.check_frames(len(shown))
    if first is None or not shown:
        reason = "; ".join(report.log_tail[-1:]) or "the header announces a video that is not there"
        raise MediaError(f"holds no video frames ({reason})")
    visible = [time for index in shown if (time := times[index]) is not None]
    if last is None or len(visible) < len(shown) or not _plausible(visible):
        report.warn("the frames' times are missing or contradictory; frames are counted at a constant rate instead")
        # Without times FFmpeg may take the unit itself for the rate.
        step = max(round(1 / ((rate if rate <= _HIGHEST_RATE else _USUAL_RATE) * unit)), 1)
        line = timeline(np.arange(len(shown), dtype=np.int64) * step, step, unit)
        limits.check_seconds(line.duration_seconds)
        return PacketIndex(line, False, np.arange(len(times), dtype=np.int64), _ints([]), first, damaged)
    line = timeline(_ints(visible), last[1], unit)
    filled = [-(1 << 62) if time is None else time for time in times]
    return PacketIndex(line, True, _ints(filled), _ints(entries), first, damaged)


def _plausible(times: list[int]) -> bool:
    """Whether times that come in decoding order can be those of frames: distinct, and reordered a little at most."""
    array = _ints(times)
    if len(np.unique(array)) * 2 <= len(array) and len(array) > 1:
        return False
    places = np.argsort(array, kind="stable")
    return int(np.abs(places - np.arange(len(array))).max()) <= REORDER_LIMIT


def _ints(values: list[int]) -> Ticks:
    return np.array(values, dtype=np.int64)
