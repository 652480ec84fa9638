"""Damaged files give what is left of them, with the damage counted; what is no media gives one line that says so."""

from __future__ import annotations

import os
import random
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from media_clips import LIMITS, numbered, read, render

from tokcli.errors import MediaError
from tokcli.media import DecodeReport, Sampling, hash_file, open_media, write_image, write_video
from tokcli.media.pyav_index import scan_packets

ONE = Sampling(num_frames=1)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("healthy")
    small = {"options": {"g": "10", "bf": "0", "crf": "20"}}
    return {
        "mp4": render(folder / "a.mp4", 100, container_options={"movflags": "faststart"}, **small),
        "ts": render(folder / "a.ts", 100, **small),
        "webm": render(folder / "a.webm", 100),
    }


def refusal(path, **how) -> str:
    with pytest.raises(MediaError) as caught:
        read(path, ONE, **how)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


@pytest.mark.parametrize("kind", ["mp4", "ts", "webm"])
def test_a_file_cut_in_the_middle_gives_its_first_half(healthy, tmp_path, kind):
    path = tmp_path / f"cut.{kind}"
    data = healthy[kind].read_bytes()
    path.write_bytes(data[: len(data) // 2])
    got = read(path)
    assert 20 < len(got) < 80
    assert got.numbers[:-1] == list(range(len(got) - 1))
    # What is missing is not made up from the last good frame.
    assert len(read(path, Sampling(fps=25.0))) <= len(got) + 1


def damage_packets(source: Path, path: Path, *victims: int) -> Path:
    """A copy in which the packets with these numbers hold nothing but ones."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(old.streams.video[0])):
            if not packet.size:
                continue
            if number in victims:
                broken = av.Packet(b"\xff" * packet.size)
                broken.pts, broken.dts, broken.time_base = packet.pts, packet.dts, packet.time_base
                broken.is_keyframe = packet.is_keyframe
                packet = broken
            packet.stream = stream
            new.mux(packet)
    return path


def test_a_bad_packet_costs_itself_and_is_counted(healthy, tmp_path):
    path = damage_packets(healthy["mp4"], tmp_path / "bad.mp4", 55)
    got = read(path)
    assert got.report.bad_packets == 1
    assert got.report.log_tail
    assert len(got) == 99
    assert got.numbers[:55] == list(range(55))
    # From the next key frame on everything is whole again.
    assert got.numbers[-40:] == list(range(60, 100))
    # By rate the missing frame's place is taken by the one that stays on display.
    by_rate = read(path, Sampling(fps=25.0))
    assert len(by_rate) == 100
    assert by_rate.numbers[55] == 54


def test_a_lost_end_is_not_made_up_from_the_last_good_frame(healthy, tmp_path):
    path = damage_packets(healthy["mp4"], tmp_path / "bad.mp4", *range(60, 100))
    got = read(path, Sampling(fps=5.0))
    assert got.numbers == list(range(0, 60, 5))
    assert got.info.num_frames == 20
    assert got.report.bad_packets == 40
    assert got.report.warnings == ["decoding ended early: 12 of 20 frames"]


def test_bit_rot_never_raises_and_never_gives_nothing(healthy, tmp_path):
    for seed in range(6):
        for kind, source in healthy.items():
            data = bytearray(source.read_bytes())
            rng = random.Random(seed)
            for _ in range(20):
                data[rng.randrange(len(data) // 3, len(data))] ^= 1 << rng.randrange(8)
            path = tmp_path / f"rot{seed}.{kind}"
            path.write_bytes(data)
            got = read(path, Sampling(fps=5.0))
            assert 1 <= len(got) <= got.info.num_frames


def test_a_hole_of_zeros_is_passed_over(healthy, tmp_path):
    data = bytearray(healthy["mp4"].read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2048] = bytes(2048)
    path = tmp_path / "hole.mp4"
    path.write_bytes(data)
    got = read(path, Sampling(fps=25.0))
    assert got.report.bad_packets + got.report.corrupt_frames > 0
    assert got.numbers[:20] == list(range(20))
    assert got.numbers[-10:] == list(range(90, 100))


def test_only_bad_packets_is_a_failure(tmp_path):
    source = render(tmp_path / "a.avi", 30, codec="mjpeg")
    path = tmp_path / "noise.avi"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.size:
                broken = av.Packet(b"\x00" * 40)
                broken.pts, broken.dts, broken.time_base = packet.pts, packet.dts, packet.time_base
                broken.is_keyframe, broken.stream = True, stream
                new.mux(broken)
    assert "no frame could be decoded (30 bad packets" in refusal(path)


def test_frames_without_times_are_counted_out(tmp_path):
    path = tmp_path / "raw.h264"
    write_video(path, [numbered(number) for number in range(50)], 25, codec="h264", options={"bf": "0"})
    got = read(path, Sampling(fps=5.0))
    assert got.numbers == list(range(0, 50, 5))
    assert got.report.warnings


def remuxed(tmp_path, stamps) -> Path:
    """Numbered intra-only frames in a container that takes any times."""
    source, path = tmp_path / "plain.avi", tmp_path / "odd.nut"
    write_video(source, [numbered(number) for number in range(len(stamps))], 25, codec="mjpeg", options={"b": "8M"})
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(old.streams.video[0]) if packet.size]
        for packet, stamp in zip(packets, stamps):
            packet.pts = packet.dts = stamp
            packet.stream = stream
            new.mux_one(packet)
    return path


def test_equal_times_are_no_times(tmp_path):
    got = read(remuxed(tmp_path, [0] * 40), Sampling(fps=5.0))
    assert got.numbers == list(range(0, 40, 5))
    assert got.report.warnings


def test_negative_times(tmp_path):
    assert read(remuxed(tmp_path, range(-20, 20)), Sampling(fps=5.0)).numbers == list(range(0, 40, 5))


def fake_packet(pts, dts=None):
    """What the index looks at; no muxer writes presentation times that go backwards."""
    return SimpleNamespace(pts=pts, dts=dts, size=9, duration=1, is_keyframe=False, is_discard=False, is_corrupt=False)


@pytest.mark.parametrize(
    "stamps, timed",
    [
        (range(100), True),
        ([0, 3, 1, 2, 4, 7, 5, 6], True),
        (range(100, 0, -1), False),
        ([None] * 10, False),
        ([0, 1, None, 3], False),
        ([5] * 10, False),
    ],
)
def test_times_are_believed_when_they_can_be_those_of_frames(stamps, timed):
    stream = SimpleNamespace(time_base=Fraction(1, 25), average_rate=Fraction(25), guessed_rate=None)
    packets = [fake_packet(stamp) for stamp in stamps]
    report = DecodeReport()
    index = scan_packets(packets, stream, SimpleNamespace(codec="x"), LIMITS, report)
    assert index.timed is timed
    assert len(index.line.times) == len(packets)
    assert index.line.duration_seconds == pytest.approx(len(packets) / 25)
    assert bool(report.warnings) is not timed


def test_wrong_extensions_do_not_matter(healthy, tmp_path):
    still, movie, gif = tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "c.jpg"
    write_image(tmp_path / "x.png", numbered(3))
    write_video(tmp_path / "x.gif", [numbered(number) for number in range(8)], 10)
    still.write_bytes((tmp_path / "x.png").read_bytes())
    movie.write_bytes(healthy["webm"].read_bytes())
    gif.write_bytes((tmp_path / "x.gif").read_bytes())
    assert read(still).info.kind == "image"
    assert read(movie).info.codec == "vp9"
    assert read(gif).numbers == list(range(8))


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "text page"),
        (b"\xef\xbb\xbf  <html>", "text page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n/etc/hostname\n", "playlist"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "playlist"),
        (b"just some words\n", "text"),
        (bytes(range(256)) * 40, " a video"),
        (b"\x89PNG\r\n\x1a\n", "not a picture that Pillow can read"),
        (b"GIF89a\xff\xff", "not a picture that Pillow can read"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "cannot be opened as a video"),
    ],
)
@pytest.mark.parametrize("suffix", [".jpg", ".mp4"])
def test_what_is_no_media_says_so(tmp_path, content, reason, suffix):
    path = tmp_path / f"thing{suffix}"
    path.write_bytes(content)
    assert reason in refusal(path)


def test_what_is_no_file_says_so_and_never_waits(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    assert "not a plain file" in refusal(tmp_path / "pipe.mp4")
    assert "is a folder" in refusal(tmp_path / "folder.mp4")
    assert "link to a file that is missing" in refusal(tmp_path / "dangling.mp4")
    assert "symbolic links" in refusal(tmp_path / "loop.mp4")
    assert "does not exist" in refusal(tmp_path / "absent.mp4")
    assert "cannot be read" in refusal(str(tmp_path / "nul\0.mp4"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(healthy, tmp_path):
    path = tmp_path / "locked.mp4"
    path.write_bytes(healthy["mp4"].read_bytes())
    path.chmod(0)
    assert "Permission denied" in refusal(path)


@pytest.mark.parametrize(
    "name",
    [b"-i.mp4", b"a\nb.mp4", b"caf\xe9\xff.mp4", b"x" * 251 + b".mp4", b"end.mp4 ", b"te[s]t ' %03d.mp4", b"c:x,y.mp4"],
)
def test_strange_names(healthy, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = os.fsdecode(name)
    Path(path).write_bytes(healthy["mp4"].read_bytes())
    assert read(path, Sampling(num_frames=2)).numbers == [25, 75]
    assert hash_file(path) == hash_file(str(healthy["mp4"]))
    Path(path).write_bytes(b"\0" * 100)
    refusal(path)


def test_nothing_is_printed(healthy, tmp_path, capfd):
    read(damage_packets(healthy["mp4"], tmp_path / "bad.mp4", 5), Sampling(fps=5.0))
    assert capfd.readouterr() == ("", "")


def test_files_are_closed_whatever_happens(healthy, tmp_path):
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    bad = tmp_path / "bad.mp4"
    bad.write_bytes(healthy["mp4"].read_bytes()[:600])
    before = open_files()
    for _ in range(20):
        with open_media(str(healthy["mp4"]), sampling=ONE, limits=LIMITS) as reader:
            next(reader.chunks(1))
        refusal(bad)
    assert open_files() <= before + 1


def test_damage_is_the_same_for_any_chunk_size(healthy, tmp_path):
    path = damage_packets(healthy["ts"], tmp_path / "bad.ts", 55)
    one, two = read(path, chunk=1), read(path, chunk=64)
    assert np.array_equal(one.pixels, two.pixels)
    assert one.report == two.report
