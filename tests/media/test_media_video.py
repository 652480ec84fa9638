"""Rendered videos give the right frames, whatever the container and codec."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from media_clips import LIMITS, ffmpeg_frames, needs_ffmpeg, number_of, numbered, read, render, same, write_transparent

from tokcli.errors import MediaError
from tokcli.media import Sampling, open_media, write_video
from tokcli.media.pyav_source import PyavSource
from tokcli.media.video_pyav import open_pyav

CONTAINERS = {
    "h264.mp4": {"codec": "h264", "options": {"g": "10", "bf": "3"}},
    "h264.mkv": {"codec": "h264", "options": {"g": "10", "bf": "3"}},
    "h264.ts": {"codec": "h264", "options": {"g": "10", "bf": "3"}},
    "open_gop.mkv": {"codec": "h264", "options": {"g": "10", "bf": "3", "x264-params": "open-gop=1"}},
    "refresh.ts": {"codec": "h264", "options": {"g": "10", "bf": "0", "x264-params": "intra-refresh=1"}},
    "interlaced.ts": {"codec": "h264", "options": {"g": "10", "x264-params": "interlaced=1"}},
    "hevc.mp4": {"codec": "hevc", "options": {"x265-params": "keyint=10:log-level=none:open-gop=1"}},
    "hevc10.mkv": {"codec": "hevc", "pixel_format": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
    "vp9.webm": {"codec": "vp9", "options": {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "16", "b": "300k"}},
    "vp8.webm": {"codec": "vp8", "options": {"g": "10", "auto-alt-ref": "1", "lag-in-frames": "16", "b": "300k"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "10", "bf": "2", "b": "2M"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"g": "10", "bf": "2", "b": "4M"}},
    "mjpeg.avi": {"codec": "mjpeg", "options": {"b": "8M"}},
    "plain.gif": {"codec": "gif"},
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Fifty numbered frames, two seconds, a file a container and codec."""
    folder = tmp_path_factory.mktemp("containers")
    return {name: render(folder / name, **how) for name, how in CONTAINERS.items()}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_frame_in_order(clips, name):
    got = read(clips[name])
    assert got.numbers == list(range(50))
    assert got.indices.tolist() == list(range(50))
    assert got.times == pytest.approx(np.arange(50) / 25, abs=0.002)
    assert got.info.kind == "video"
    assert (got.info.width, got.info.height) == (128, 96)
    assert got.info.duration_seconds == pytest.approx(2.0, abs=0.045)
    assert got.report.bad_packets == got.report.corrupt_frames == 0


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize(
    "sampling",
    [Sampling(fps=1.0), Sampling(fps=5.0), Sampling(num_frames=3), Sampling(fps=None, max_frames=9)],
    ids=str,
)
def test_the_short_way_gives_the_pixels_of_the_long_one(clips, name, sampling):
    results = []
    for short in (True, False):
        with open_pyav(str(clips[name]), sampling, LIMITS, None, short=short) as reader:
            results.append(next(reader.chunks(64)))
    assert np.array_equal(results[0].pixels, results[1].pixels)
    assert np.array_equal(results[0].times, results[1].times)
    assert np.array_equal(results[0].indices, results[1].indices)


@pytest.fixture
def sent(monkeypatch):
    """Packets that reach the decoder."""
    packets = []
    original = PyavSource.decode

    def decode(self, packet):
        if packet is not None:
            packets.append(packet)
        return original(self, packet)

    monkeypatch.setattr(PyavSource, "decode", decode)
    return packets


@pytest.mark.parametrize("name", ["h264.mp4", "h264.ts", "hevc.mp4", "vp9.webm", "mjpeg.avi", "mpeg2.ts"])
def test_the_short_way_is_taken_and_decodes_less(clips, name, sent):
    assert read(clips[name], Sampling(num_frames=2)).numbers == [12, 37]
    assert len(sent) < 30


def test_interlaced_pictures_go_the_long_way(clips, sent):
    assert read(clips["interlaced.ts"], Sampling(num_frames=2)).numbers == [12, 37]
    assert len(sent) > 37


def test_ticks_take_the_frame_on_display(clips):
    assert read(clips["h264.mp4"], Sampling(fps=4.0)).numbers == [0, 6, 12, 18, 25, 31, 37, 43]


def test_chunks_do_not_change_what_comes(clips):
    whole = read(clips["vp9.webm"], Sampling(fps=10.0), chunk=100)
    for size in (1, 3, 20):
        parts = read(clips["vp9.webm"], Sampling(fps=10.0), chunk=size)
        assert all(len(chunk) <= size for chunk in parts.chunks)
        assert same(whole, parts)


def test_more_ticks_than_frames_repeat_them(clips):
    got = read(clips["h264.mp4"], Sampling(fps=50.0))
    assert got.numbers == [number for number in range(50) for _ in range(2)]
    assert got.info.num_frames == 100


def test_variable_frame_rate_goes_by_time(tmp_path):
    # Frame 1 stays on display from 40 ms to 2 s.
    times = [0, 1, 50, 51, 100]
    path = tmp_path / "vfr.mp4"
    write_video(path, [numbered(number) for number in range(5)], 25, times=times)
    got = read(path, Sampling(fps=1.0))
    assert got.numbers[:5] == [0, 1, 2, 3, 4]
    assert read(path, Sampling(fps=2.0)).numbers[:5] == [0, 1, 1, 1, 2]
    assert got.times[1] == pytest.approx(0.04)


def test_times_are_relative_to_the_first_frame(tmp_path):
    path = tmp_path / "late.mkv"
    write_video(path, [numbered(number) for number in range(50)], 25, times=range(500, 550))
    got = read(path, Sampling(fps=1.0))
    assert got.numbers == [0, 25]
    assert got.times.tolist() == [0.0, 1.0]


def test_an_edit_list_that_drops_the_start_is_followed(tmp_path):
    source = render(tmp_path / "source.mp4", codec="h264", options={"g": "50", "bf": "0"})
    path = tmp_path / "cut.mp4"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                shift = int(Fraction(10, 25) / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = stream
                new.mux(packet)
    got = read(path)
    assert got.numbers == list(range(10, 50))
    assert got.indices.tolist() == list(range(40))


def test_frame_size_scales_while_converting(clips):
    asked = []

    def half(info):
        asked.append((info.width, info.height))
        return (48, 64)

    got = read(clips["h264.mp4"], Sampling(fps=2.0), frame_size=half)
    assert got.pixels.shape == (4, 48, 64, 3)
    assert asked == [(128, 96)]
    assert got.numbers == [0, 12, 25, 37]
    assert got.info.width == 128


def test_odd_sizes(tmp_path):
    path = render(tmp_path / "odd.mp4", 10, size=(97, 131), pixel_format="yuv444p")
    got = read(path)
    assert got.pixels.shape[1:] == (97, 131, 3)
    assert got.numbers == list(range(10))
    small = render(tmp_path / "small.mp4", 3, size=(2, 2))
    assert read(small).pixels.shape == (3, 2, 2, 3)


def test_one_frame_video(tmp_path):
    got = read(render(tmp_path / "one.mp4", 1), Sampling(num_frames=3))
    assert got.numbers == [0, 0, 0]
    assert got.info.kind == "video"


def test_the_size_of_the_first_frame_stays_when_the_stream_changes_it(tmp_path):
    one = render(tmp_path / "one.ts", 25, size=(96, 128))
    two = render(tmp_path / "two.ts", 25, size=(192, 256))
    path = tmp_path / "both.ts"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    got = read(path, Sampling(fps=None))
    assert got.pixels.shape[1:] == (96, 128, 3)
    assert set(got.numbers) == set(range(25))


def test_a_cover_picture_is_not_the_video(tmp_path):
    with open_media(str(render(tmp_path / "a.mp4", 5)), sampling=Sampling(), limits=LIMITS) as reader:
        assert reader.info.codec == "h264"
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        container.add_stream("aac", rate=8000)
        stream = container.streams[0]
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match="no video stream; what it holds is audio"):
        read(path)


def test_transparency_lies_over_white(tmp_path):
    got = read(write_transparent(tmp_path / "alpha.webm"))
    assert got.numbers == list(range(10))
    assert np.abs(got.pixels[0][90, 8:120].astype(int) - 255).max() <= 2
    half = (numbered(0)[60, 8:120].astype(int) + 255) / 2
    assert np.abs(got.pixels[0][60, 8:120] - half).max() < 16
    small = read(tmp_path / "alpha.webm", frame_size=lambda info: (48, 64))
    assert np.abs(small.pixels[0][45, 4:60].astype(int) - 255).max() <= 2


TURNS = {
    (0, False, False): lambda image: image,
    (90, False, False): np.rot90,
    (180, False, False): lambda image: np.rot90(image, 2),
    (-90, False, False): lambda image: np.rot90(image, -1),
    (0, True, False): lambda image: image[:, ::-1],
    (0, False, True): lambda image: image[::-1],
    (90, True, False): None,
}
"""Counter-clockwise degrees and flips of the display matrix. The last has no obvious order: ffmpeg decides below."""


@pytest.fixture(scope="module")
def turned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("turned")
    files = {}
    for turn in TURNS:
        degrees, hflip, vflip = turn
        path = files[turn] = folder / f"turned{degrees}{hflip:d}{vflip:d}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
            stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv444p"
            stream.set_display_rotation(degrees, hflip=hflip, vflip=vflip)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(77), format="rgb24")))
            container.mux(stream.encode(None))
    return files


@pytest.mark.parametrize("turn", [turn for turn, expected in TURNS.items() if expected])
def test_rotation_and_mirroring_are_applied(turned, turn):
    expected = TURNS[turn](numbered(77))
    got = read(turned[turn])
    assert (got.info.height, got.info.width) == expected.shape[:2]
    assert np.abs(got.pixels[0].astype(int) - expected).mean() < 3
    half = read(turned[turn], frame_size=lambda info: (info.height // 2, info.width // 2))
    assert half.pixels.shape[1:3] == (expected.shape[0] // 2, expected.shape[1] // 2)
    assert np.abs(half.pixels[0].astype(int) - expected[::2, ::2]).mean() < 30


@needs_ffmpeg
@pytest.mark.parametrize("turn", TURNS)
def test_ffmpeg_turns_the_same_way(turned, turn):
    got = read(turned[turn])
    assert np.array_equal(ffmpeg_frames(turned[turn], got.info)[0], got.pixels[0])


def test_pixels_are_those_that_were_drawn(tmp_path):
    drawn = numbered(77)
    path = tmp_path / "lossless.mkv"
    write_video(path, [drawn], 25, codec="ffv1", pixel_format="bgr0")
    assert np.array_equal(read(path).pixels[0], drawn)
    assert number_of(drawn) == 77
