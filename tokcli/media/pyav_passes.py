"""Two ways through a video's packets that deliver the same frames: all of them in order, or only what is needed.

The second leaves out whole runs of packets between key frames, and pictures that no other is predicted from. The
packets are still read in order, which costs 1% of decoding them, so no container's seeking has to be trusted; what
comes out is checked against the index by presentation time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tokcli.errors import MediaError
from tokcli.media.pyav_index import PacketIndex
from tokcli.media.pyav_source import BAD_RUN_LIMIT, BadPacketError, PyavSource
from tokcli.media.reader import DecodeReport
from tokcli.media.sampling import Plan


class Taken(NamedTuple):
    """A decoded frame that the sampling takes."""

    frame: Any
    time: int
    """In the timeline's units."""
    repeats: int
    """Ticks at which it is the one on display, at least 1."""
    doubtful: bool = False
    """Whether it may be predicted from what was lost."""


class NotIdenticalError(Exception):
    """The short way can't be shown to give the frames of the long one."""


def linear_pass(
    source: PyavSource, packets: Iterable[Any], index: PacketIndex, plan: Plan, start: int
) -> Iterator[Taken]:
    """Decode everything; at each tick from number ``start`` take the last frame that was decoded with a time <= tick.

    Raises:
        MediaError: no frame at all could be decoded.
    """
    ticks = plan.ticks
    held: Taken | None = None
    done = start
    for frame, time in _timed(_frames(source, packets), index):
        if frame.key_frame and not frame.is_corrupt:
            source.doubtful = False
        new = Taken(frame, time, 1, source.doubtful)
        due = int(np.searchsorted(ticks, time, side="left")) - done
        if due > 0:
            taken = held or new
            if not plan.every:
                _count(source.report, taken, _as_planned(taken, index, plan, done, due))
                yield taken._replace(repeats=due)
            elif taken.time >= ticks[done]:
                _count(source.report, taken, 1)
                yield taken
            done += due
            if done == len(ticks):
                return
        held = new
    if held is None:
        raise MediaError(_nothing_decoded(source))
    last = len(ticks)
    if source.report.bad_packets or source.report.corrupt_frames:
        # The end is missing: what was to follow is not made up from the last good frame.
        place = index.line.index(held.time) + 1
        until = int(index.line.times[place]) if place < len(index.line.times) else index.line.end
        last = max(int(np.searchsorted(ticks, until, side="left")), done, 1 if start == 0 else start)
    if last > done:
        repeats = 1 if plan.every else last - done
        _count(source.report, held, _as_planned(held, index, plan, done, repeats))
        yield held._replace(repeats=repeats)
    if last < len(ticks):
        source.report.warn(f"decoding ended early: {last} of {len(ticks)} frames")


def _as_planned(taken: Taken, index: PacketIndex, plan: Plan, first: int, repeats: int) -> int:
    """At how many of the ticks from number ``first`` the frame is the one that the packets announced."""
    # Two fields may have a packet each and make one frame.
    slack = 2 if taken.frame.interlaced_frame else 1
    place = index.line.index(taken.time)
    return int(np.count_nonzero(plan.frames[first : first + repeats] < place + slack))


def _count(report: DecodeReport, taken: Taken, ticks: int) -> None:
    """Note a frame that is what was planned at so many ticks."""
    if not taken.frame.is_corrupt:
        report.decoded_frames += ticks
        report.doubtful_frames += ticks * taken.doubtful


def short_pass(source: PyavSource, packets: Iterable[Any], index: PacketIndex, plan: Plan) -> Iterator[Taken]:
    """Decode what the planned frames need.

    Raises:
        NotIdenticalError: a planned frame did not come out, one came that the index does not know, a packet was bad,
            or pictures are interlaced. Frames given until then are right.
    """
    numbers, repeats = np.unique(plan.frames, return_counts=True)
    wanted = index.line.times[numbers].tolist()
    known = set(index.line.times.tolist())
    needed = _needed(index, wanted)
    chosen = set(wanted)
    done = 0
    for frame in _chosen_frames(source, packets, index, needed, chosen):
        time = frame.pts
        # The second field of an interlaced picture may have a packet of its own, and be missing.
        if time not in known or time > wanted[done] or source.report.corrupt_frames or frame.interlaced_frame:
            raise NotIdenticalError
        if time == wanted[done]:
            source.report.decoded_frames += int(repeats[done])
            yield Taken(frame, time, int(repeats[done]))
            done += 1
            if done == len(wanted):
                return
    raise NotIdenticalError


def _needed(index: PacketIndex, wanted: list[int]) -> list[bool]:
    """Which packets the wanted times need: from the last entry that is shown no later, to the picture itself."""
    places = {time: place for place, time in enumerate(index.times.tolist())}
    steps = np.zeros(len(index.times) + 1, dtype=np.int64)
    entry_times = index.times[index.entries]
    for time in wanted:
        place = places[time]
        entry = int(np.searchsorted(index.entries, place, side="right")) - 1
        while entry >= 0 and entry_times[entry] > time:  # a picture shown before its key frame needs the one before
            entry -= 1
        steps[int(index.entries[entry]) if entry >= 0 else 0] += 1
        steps[place + 1] -= 1
    flags: list[bool] = (np.cumsum(steps)[:-1] > 0).tolist()
    return flags


def _chosen_frames(
    source: PyavSource, packets: Iterable[Any], index: PacketIndex, needed: list[bool], chosen: set[int]
) -> Iterator[Any]:
    """Frames from the needed packets; pictures that nothing refers to are left out unless chosen."""
    times = index.times
    leave_out = source.bits.may_leave_out
    running = False
    last = max(place for place, need in enumerate(needed) if need)
    try:
        for place, packet in enumerate(packets):
            if place > last:
                break
            if needed[place]:
                if leave_out and int(times[place]) not in chosen and source.bits.is_unreferenced(memoryview(packet)):
                    continue
                running = True
                yield from source.decode(packet)
            elif running:
                running = False
                yield from source.decode(None)
                source.context.flush_buffers()
        if running:
            yield from source.decode(None)
    except BadPacketError:
        raise NotIdenticalError from None


def _frames(source: PyavSource, packets: Iterable[Any]) -> Iterator[Any]:
    """Every frame that can be had; bad packets are passed over until too many come in a row."""
    run = 0
    for packet in packets:
        try:
            frames = source.decode(packet)
        except BadPacketError:
            run += 1
            if run >= BAD_RUN_LIMIT:
                source.report.warn(f"decoding was given up after {run} bad packets in a row")
                break
            continue
        run = 0
        yield from frames
    try:
        yield from source.decode(None)
    except BadPacketError:
        return


def _timed(frames: Iterable[Any], index: PacketIndex) -> Iterator[tuple[Any, int]]:
    """Frames with their times, never going back."""
    line = index.line
    step = line.end - int(line.times[-1])
    last = int(line.times[0]) - step
    for count, frame in enumerate(frames):
        if not index.timed:
            time = int(line.times[0]) + count * step
        else:
            stamp = frame.pts if frame.pts is not None else frame.dts
            time = last + step if stamp is None else max(stamp, last)
        last = time
        yield frame, time


def _nothing_decoded(source: PyavSource) -> str:
    last = f": {source.report.log_tail[-1]}" if source.report.log_tail else ""
    return f"no frame could be decoded ({source.report.bad_packets} bad packets{last})"
