"""The real files: all healthy ones open, the short way is exact on each, every broken one says why."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from media_clips import LIMITS, read

from tokcli.errors import MediaError
from tokcli.media import Sampling, scan_inputs
from tokcli.media.video_pyav import open_pyav

pytestmark = pytest.mark.media

MEDIA = Path(os.environ.get("TOKCLI_MEDIA", Path(__file__).parents[3] / "shared" / "media"))


def names(folder: str) -> list[str]:
    return sorted(path.name for path in (MEDIA / folder).iterdir()) if (MEDIA / folder).is_dir() else []


REFUSED = {
    "Pillow__broken_data_stream.png": "cannot be decoded as PNG",
    "Pillow__decompression_bomb.gif": "--limit-pixels",
    "Pillow__png_decompression_dos.png": "cannot be opened as a picture: Decompressed data too large",
    "Pillow__truncated_jpeg.jpg": "truncated",
    "libvips__17000x17000.avif": "not a picture that Pillow can read",
    "media__invalid-bitstream.webm": "51 bad packets",
    "metadata-extractor-images__e34116d68f49c7852b362ec72a636df5.gif": "not a picture that Pillow can read",
    "moviepy__result.webm": "is empty",
    "mp4parse-rust__invalid_userdata.mp4": "holds no video frames",
    "mp4parse-rust__test_case_1185230.mp4": "3 bad packets",
    "small__Mpeg4.mp4": "holds no video stream",
    "torchcodec__corrupt.jpg": "broken data stream",
    "torchcodec__heapbof.png": "neither a video nor a picture",
    "vhs__demo.mp4": "git lfs pull",
}

SALVAGED = {
    # name: (frames that come out, packets refused, frames flagged)
    "decord__corrupted.mp4": (49, 1, 1),
    "decord__unordered.mov": (4, 0, 0),
    "media__sample_with_invalid_nalu.mp4": (29, 1, 0),
    "moviepy__no_duration.webm": (74, 0, 0),
    "te[s]t_ video ' _ .flv": (10, 0, 0),
    "torchcodec__discard_first_keyframe.mp4": (25, 0, 0),
    "VideoLLaMA3__city1.jpg": (1, 0, 0),
    "libavif__paris_icc_exif_xmp.png": (1, 0, 0),
}


@pytest.mark.parametrize("name", names("video"))
@pytest.mark.parametrize("sampling", [Sampling(fps=2.0), Sampling(num_frames=8)], ids=["fps", "number"])
def test_the_short_way_is_exact(name, sampling):
    results = []
    for short in (True, False):
        with open_pyav(str(MEDIA / "video" / name), sampling, LIMITS, lambda info: (112, 168), short=short) as reader:
            results.append(next(reader.chunks(1000)))
            assert reader.info.num_frames == len(results[-1])
            assert reader.report.bad_packets == 0
    assert np.array_equal(results[0].pixels, results[1].pixels)
    assert np.array_equal(results[0].times, results[1].times)
    assert np.array_equal(results[0].indices, results[1].indices)
    assert np.all(np.diff(results[0].times) >= 0)


@pytest.mark.parametrize("name", names("image"))
def test_stills(name):
    if name.endswith(".heic"):
        pytest.importorskip("pillow_heif")
    got = read(MEDIA / "image" / name, Sampling())
    assert got.info.kind == ("video" if name == "Pillow__iss634.webp" else "image")
    assert got.pixels.shape[1:3] == (got.info.height, got.info.width)
    assert got.pixels.std() > 1


def test_upright_stills():
    for name, size in {
        "exif-orientation-examples__Portrait_6.jpg": (1200, 1800),
        "libavif__paris_exif_orientation_5.jpg": (302, 403),
        "metadata-extractor-images__Samsung_GT-I9000_Galaxy_S.jpg": (480, 640),
    }.items():
        info = read(MEDIA / "image" / name, Sampling()).info
        assert (info.width, info.height) == size


def test_nothing_shows_through_transparent_pixels():
    rose = read(MEDIA / "image" / "metadata-extractor-images__Alpha_Lossy_1.webp", Sampling()).pixels[0]
    assert rose[0, 0].tolist() == [255, 255, 255]
    dot = read(MEDIA / "video" / "moviepy__transparent.webm", Sampling()).pixels[0]
    assert (dot == 255).all(axis=-1).mean() > 0.5


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_decoded_says_why(name):
    with pytest.raises(MediaError) as caught:
        read(MEDIA / "corrupt" / name, Sampling())
    message = str(caught.value)
    assert REFUSED[name] in message and name in message
    assert "\n" not in message


@pytest.mark.parametrize("name", SALVAGED)
def test_what_is_left_is_delivered_and_damage_counted(name):
    got = read(MEDIA / "corrupt" / name)
    assert (len(got), got.report.bad_packets, got.report.corrupt_frames) == SALVAGED[name]


def test_the_best_stream_is_taken():
    info = read(MEDIA / "video" / "torchcodec__nasa_13013.mp4", Sampling()).info
    assert (info.width, info.height, info.source_fps) == (480, 270, pytest.approx(29.97, abs=0.01))


def test_rotated_sizes():
    rotated = read(MEDIA / "video" / "torchcodec__nasa_13013_rotated.mp4", Sampling()).info
    assert (rotated.width, rotated.height) == (270, 480)


def test_scanning_takes_every_file_but_the_litter():
    result = scan_inputs([str(MEDIA / "corrupt")])
    assert sorted(Path(item.path).name for item in result.items) == sorted([*REFUSED, *SALVAGED])
    assert not result.failures
    assert len(scan_inputs([str(MEDIA / "video"), str(MEDIA / "image")]).items) == len(names("video") + names("image"))
