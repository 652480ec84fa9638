"""Limits hold before anything is decoded, and say which option raises them."""

from __future__ import annotations

import pytest
from media_clips import read, render

from tokcli.errors import MediaError, UsageError
from tokcli.media import Limits, Sampling, decoder_names, open_media
from tokcli.media.pyav_source import PyavSource


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return render(tmp_path_factory.mktemp("limits") / "clip.mp4", 50)


@pytest.mark.parametrize(
    "limits, option",
    [
        (Limits(max_pixels=96 * 128 - 1), "--limit-pixels"),
        (Limits(max_frames=49), "--limit-frames"),
        (Limits(max_seconds=1.9), "--limit-seconds"),
    ],
)
def test_each_limit_refuses_before_decoding(clip, limits, option, monkeypatch):
    def decode(self, packet):
        raise AssertionError("decoded")

    monkeypatch.setattr(PyavSource, "decode", decode)
    with pytest.raises(MediaError, match=option) as caught:
        read(clip, Sampling(), limits=limits)
    assert "clip.mp4: " in str(caught.value)


def test_limits_that_are_just_met_do_not_refuse(clip):
    assert len(read(clip, limits=Limits(max_pixels=96 * 128, max_frames=50, max_seconds=2.0))) == 50


def test_too_many_ticks_are_refused(clip):
    with pytest.raises(MediaError, match="--max-frames"):
        read(clip, Sampling(fps=100.0), limits=Limits(max_frames=60))
    assert len(read(clip, Sampling(fps=100.0, max_frames=60), limits=Limits(max_frames=60))) == 60


def test_unknown_decoder(clip):
    assert decoder_names() == ("auto", "pyav", "decord", "torchcodec")
    with pytest.raises(UsageError, match="unknown decoder 'opencv'; known: auto, pyav"):
        open_media(str(clip), sampling=Sampling(), limits=Limits(), decoder="opencv")


def test_a_chunk_has_room_for_a_frame(clip):
    with pytest.raises(UsageError, match="at least 1"):
        read(clip, chunk=0)
