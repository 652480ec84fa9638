"""Videos through PyAV: index, plan, decode what is needed, convert what is wanted."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import NamedTuple

from tokcli.media.cut import absent_share
from tokcli.media.limits import Limits
from tokcli.media.orientation import Orientation, from_display_matrix
from tokcli.media.pyav_convert import Converter, has_alpha
from tokcli.media.pyav_index import PacketIndex, scan_packets
from tokcli.media.pyav_passes import NotIdenticalError, Taken, linear_pass, short_pass
from tokcli.media.pyav_source import PyavSource, decoder_version
from tokcli.media.reader import DecodeReport, FrameSize, MediaReader
from tokcli.media.sampling import Plan, Sampling, Timeline, plan
from tokcli.media.stacking import stack
from tokcli.types import Frames, MediaInfo


def open_pyav(
    path: str, sampling: Sampling, limits: Limits, frame_size: FrameSize | None, *, short: bool = True
) -> PyavReader:
    """``open_media`` for videos; ``short=False`` decodes every frame, for comparison."""
    report = DecodeReport()
    scan_report = DecodeReport()
    source = PyavSource(path, limits, scan_report)
    try:
        index = scan_packets(source.packets(), source.stream, source.bits, limits, scan_report)
        damaged = index.damaged or scan_report.bad_packets > 0
        report.warnings += scan_report.warnings
        report.absent_share = absent_share(path)
        if report.absent_share:
            report.warn(f"the file is cut: {report.absent_share:.1%} of its bytes are missing")
        source.report = report
        short = short and index.timed and not damaged
        return PyavReader(source, index, plan(index.line, sampling, limits), frame_size, short=short)
    except BaseException:
        source.close()
        raise


class Parts(NamedTuple):
    """A file's timeline, what is taken of it, and how its pictures are stored."""

    line: Timeline
    sampled: Plan
    orientation: Orientation
    transparent: bool


class PyavReader(MediaReader):
    """One video. The first frame is decoded on opening: only it tells how the picture is to be laid."""

    def __init__(
        self, source: PyavSource, index: PacketIndex, sampled: Plan, frame_size: FrameSize | None, *, short: bool
    ) -> None:
        self.report = source.report
        self._source, self._index, self._plan = source, index, sampled
        self._taken = self._decode(short)
        self._first = next(self._taken)
        frame = self._first.frame
        context = source.stream.codec_context
        self.orientation = _orientation(frame)
        height, width = self.orientation.size(context.height, context.width)
        line = index.line
        self.info = MediaInfo(
            kind="video",
            width=width,
            height=height,
            num_frames=len(sampled.ticks),
            sample_fps=sampled.sample_fps,
            duration_seconds=line.duration_seconds,
            source_fps=line.fps,
            codec=source.bits.codec,
            decoder=decoder_version(),
        )
        self._size = frame_size(self.info) if frame_size else (height, width)
        aspect = source.stream.sample_aspect_ratio
        if aspect and abs(float(aspect) - 1) > 0.02 and 0.1 < aspect < 10:
            self.report.warn(f"pixels are not square ({aspect}); they are taken as stored")

    def _chunks(self, max_frames: int) -> Iterator[Frames]:
        converter = Converter(self.orientation, self._size)
        line = self._index.line
        frames = (
            (taken.frame, line.seconds(taken.time), line.index(taken.time), taken.repeats) for taken in self._all()
        )
        yield from stack(frames, converter.write, self._size, min(max_frames, self.info.num_frames))

    def parts(self) -> Parts:
        """What was found out about the file, for a backend that only decodes."""
        return Parts(self._index.line, self._plan, self.orientation, has_alpha(self._first.frame))

    def close(self) -> None:
        self._taken.close()
        self._source.close()

    def _all(self) -> Iterator[Taken]:
        yield self._first
        yield from self._taken

    def _decode(self, short: bool) -> Generator[Taken, None, None]:
        """The taken frames, by the short way as long as it can be trusted, then by the long one."""
        done = 0
        if short:
            try:
                for taken in short_pass(self._source, self._source.rewind(self._index.first), self._index, self._plan):
                    done += taken.repeats
                    yield taken
                return
            except NotIdenticalError:
                self.report.bad_packets = self.report.corrupt_frames = 0
        yield from linear_pass(self._source, self._source.rewind(self._index.first), self._index, self._plan, done)


def _orientation(frame: object) -> Orientation:
    matrix = frame.side_data.get("DISPLAYMATRIX")  # type: ignore[attr-defined]
    return from_display_matrix(bytes(matrix)) if matrix is not None else Orientation()
