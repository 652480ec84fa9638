"""Every installed backend delivers the frames that PyAV delivers, or refuses the file with a reason."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from media_clips import read, render, write_transparent

from tokcli.errors import MediaError, UsageError
from tokcli.media import Limits, Sampling, open_media

OTHERS = ("decord", "torchcodec")

REFUSED = {
    ("decord", "av1.mp4"): "its FFmpeg of 2021 has no AV1 decoder",
    ("decord", "plain.gif"): "it cannot measure the duration of a GIF",
    ("decord", "alpha.webm"): "it would drop the transparency and show what lies beneath",
    ("decord", "untimed.h264"): "it cannot measure the duration of a raw stream",
    ("torchcodec", "plain.gif"): "stored with an alpha channel, which it drops",
    ("torchcodec", "alpha.webm"): "it would drop the transparency and show what lies beneath",
    ("torchcodec", "untimed.h264"): "frames without times cannot be held to the packets'",
}
"""What a backend is known not to do, and why; the message must name it and point to PyAV."""

CLIPS = {
    "plain.mp4": {"codec": "h264", "options": {"g": "10", "bf": "3"}},
    "plain.mkv": {"codec": "h264", "options": {"g": "10", "bf": "3"}},
    "plain.webm": {"codec": "vp9"},
    "mpeg.ts": {"codec": "h264", "options": {"g": "10", "bf": "0"}},
    "mjpeg.avi": {"codec": "mjpeg", "options": {"b": "8M"}},
    "odd.mp4": {"codec": "h264", "pixel_format": "yuv444p", "size": (97, 131)},
    "uneven.mp4": {"codec": "h264", "times": [n * n for n in range(50)]},
    "av1.mp4": {"codec": "av1", "options": {"svtav1-params": "keyint=10"}},
    "plain.gif": {"codec": "gif"},
    "untimed.h264": {"codec": "h264", "options": {"bf": "0"}},
}


def available(name: str) -> bool:
    """Whether the backend really loads, tried in another process: a library that does not fit may crash."""
    if importlib.util.find_spec(name) is None:
        return False
    code = f"import {name}" + (".decoders" if name == "torchcodec" else "")
    return subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120).returncode == 0


BACKENDS = [
    pytest.param(name, marks=[] if available(name) else pytest.mark.skip(reason=f"{name} is not installed"))
    for name in OTHERS
]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backends")
    made = {name: render(folder / name, **how) for name, how in CLIPS.items()}
    made["alpha.webm"] = write_transparent(folder / "alpha.webm")
    return made


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [*CLIPS, "alpha.webm"])
@pytest.mark.parametrize("sampling", [Sampling(fps=5.0), Sampling(num_frames=3)], ids=["fps", "number"])
def test_same_frames_or_a_reason(clips, backend, name, sampling):
    expected = read(clips[name], sampling)
    try:
        got = read(clips[name], sampling, decoder=backend)
    except MediaError as error:
        assert (backend, name) in REFUSED, error
        assert backend in str(error) and "--decoder pyav" in str(error)
        return
    assert (backend, name) not in REFUSED, "delivered after all: take it off the list"
    assert got.numbers == expected.numbers
    assert np.array_equal(got.times, expected.times)
    assert np.array_equal(got.indices, expected.indices)
    # Their own conversion to RGB may round chroma otherwise.
    assert np.abs(got.pixels.astype(int) - expected.pixels).mean() < 1
    assert got.info.decoder.startswith(backend)
    assert got.info.num_frames == expected.info.num_frames


@pytest.mark.parametrize("backend", BACKENDS)
def test_chunks_and_sizes(clips, backend):
    whole = read(clips["plain.mp4"], Sampling(fps=10.0), decoder=backend, frame_size=lambda info: (48, 64))
    parts = read(clips["plain.mp4"], Sampling(fps=10.0), decoder=backend, frame_size=lambda info: (48, 64), chunk=3)
    assert whole.pixels.shape == (20, 48, 64, 3)
    assert np.array_equal(whole.pixels, parts.pixels)


@pytest.mark.parametrize("backend", BACKENDS)
def test_stills_are_pillows_whatever_the_backend(backend, tmp_path):
    from tokcli.media import write_image

    write_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    assert read(tmp_path / "a.png", decoder=backend).info.decoder.startswith("pillow")


@pytest.mark.parametrize("backend", OTHERS)
def test_a_backend_that_is_not_installed_says_how(clips, backend, monkeypatch):
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(UsageError, match=rf'pip install "tokcli\[{backend}\]"'):
        open_media(str(clips["plain.mp4"]), sampling=Sampling(), limits=Limits(), decoder=backend)
