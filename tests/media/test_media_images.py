"""Stills of every colour mode come out as the RGB that a viewer shows; animated pictures are video."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from media_clips import numbered, read
from PIL import Image

from tokcli.errors import MediaError
from tokcli.media import Limits, Sampling
from tokcli.media.orientation import from_display_matrix

ONE = Sampling()


def pixel(path, x=0, y=0) -> list[int]:
    return read(path, ONE).pixels[0, y, x].tolist()


def save(tmp_path, image: Image.Image, suffix=".png", **how):
    path = tmp_path / f"picture{suffix}"
    image.save(path, **how)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".ppm", ".jp2"])
def test_lossless_formats_give_the_pixels_that_were_saved(tmp_path, suffix):
    how = {"lossless": True} if suffix == ".webp" else {}
    got = read(save(tmp_path, Image.fromarray(numbered(5)), suffix, **how), ONE)
    assert np.array_equal(got.pixels[0], numbered(5))
    assert got.info.kind == "image"
    assert got.info.num_frames == 1
    assert got.info.sample_fps is None
    assert got.info.duration_seconds == 0
    assert (got.info.width, got.info.height) == (128, 96)


@pytest.mark.parametrize("suffix", [".jpg", ".avif", ".webp"])
def test_lossy_formats_come_near(tmp_path, suffix):
    got = read(save(tmp_path, Image.fromarray(numbered(5)), suffix, quality=95), ONE)
    assert np.abs(got.pixels[0].astype(int) - numbered(5)).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    """Each picture is stored so that it looks the same once its EXIF is obeyed (transposition by hand)."""
    upright = numbered(9)
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, Image.fromarray(np.ascontiguousarray(undo(upright))), ".png", exif=exif)
    got = read(path, ONE)
    assert np.array_equal(got.pixels[0], upright)
    assert (got.info.width, got.info.height) == (128, 96)


def test_alpha_lies_over_white(tmp_path):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[..., :3] = (200, 100, 0)
    rgba[:, 0, 3], rgba[:, 1, 3], rgba[:, 2, 3] = 0, 255, 51
    path = save(tmp_path, Image.fromarray(rgba))
    assert pixel(path, 0) == [255, 255, 255]
    assert pixel(path, 1) == [200, 100, 0]
    # 51/255 is a fifth: 0.2 * colour + 0.8 * 255.
    assert pixel(path, 2) == [244, 224, 204]


def test_grey_with_alpha_and_palette_with_transparency(tmp_path):
    grey = Image.fromarray(np.array([[[80, 0], [80, 255]]], np.uint8), "LA")
    path = save(tmp_path, grey)
    assert [pixel(path, 0), pixel(path, 1)] == [[255] * 3, [80] * 3]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    path = save(tmp_path, palette, transparency=0)
    assert [pixel(path, 0), pixel(path, 1)] == [[255] * 3, [40, 50, 60]]
    rgb = Image.new("RGB", (2, 1), (1, 2, 3))
    rgb.putpixel((1, 0), (9, 9, 9))
    path = save(tmp_path, rgb, transparency=(1, 2, 3))
    assert [pixel(path, 0), pixel(path, 1)] == [[255] * 3, [9] * 3]


def test_deep_greys_are_scaled_not_clipped(tmp_path):
    deep = np.array([[0, 257, 32768, 65535]], np.uint16)
    for suffix in (".png", ".tif"):
        path = save(tmp_path, Image.fromarray(deep), suffix)
        assert read(path, ONE).pixels[0, 0, :, 0].tolist() == [0, 1, 128, 255]
    path = save(tmp_path, Image.fromarray(np.array([[0, 65535, 1000]], np.int32)), ".tif")
    assert read(path, ONE).pixels[0, 0, :, 0].tolist() == [0, 255, 4]
    path = save(tmp_path, Image.fromarray(np.array([[-100, 0, 100]], np.int32)), ".tif")
    assert read(path, ONE).pixels[0, 0, :, 0].tolist() == [0, 128, 255]
    path = save(tmp_path, Image.fromarray(np.array([[0.0, 0.5, 1.0, np.nan]], np.float32)), ".tif")
    assert read(path, ONE).pixels[0, 0, :, 0].tolist() == [0, 128, 255, 0]


def test_bilevel_and_cmyk(tmp_path):
    assert pixel(save(tmp_path, Image.new("1", (4, 4), 1))) == [255] * 3
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(np.array(pixel(save(tmp_path, red, ".jpg"))) - (255, 0, 0)).max() < 12


def test_frame_size_scales_stills(tmp_path):
    path = save(tmp_path, Image.fromarray(numbered(5)))
    got = read(path, ONE, frame_size=lambda info: (info.height // 2, info.width // 4))
    assert got.pixels.shape == (1, 48, 32, 3)
    assert np.array_equal(got.pixels[0], np.asarray(Image.fromarray(numbered(5)).resize((32, 48), Image.BICUBIC)))


@pytest.mark.parametrize("suffix", [".webp", ".png", ".gif", ".avif"])
def test_animated_pictures_are_video_with_their_own_durations(tmp_path, suffix):
    frames = [Image.fromarray(numbered(number)) for number in range(4)]
    how = {".webp": {"lossless": True}, ".avif": {"quality": 90}}.get(suffix, {})
    durations = [500, 1000, 250, 250]
    path = save(tmp_path, frames[0], suffix, save_all=True, append_images=frames[1:], duration=durations, **how)
    got = read(path)
    assert got.info.kind == "video"
    assert got.numbers == [0, 1, 2, 3]
    assert got.times == pytest.approx([0, 0.5, 1.5, 1.75])
    assert got.info.duration_seconds == pytest.approx(2.0)
    assert read(path, Sampling(fps=1.0)).numbers == [0, 1]
    assert read(path, Sampling(num_frames=4)).numbers == [0, 1, 1, 3]


@pytest.mark.parametrize("suffix", [".webp", ".png", ".gif"])
def test_animated_transparency_lies_over_white(tmp_path, suffix):
    frames = [Image.new("RGBA", (32, 32), (255, 0, 0, 255)) for _ in range(3)]
    for number, frame in enumerate(frames):
        frame.paste((0, 0, 0, 0), (0, 0, 16, 8 * (number + 1)))
    how = {".webp": {"lossless": True}, ".gif": {"disposal": 2}}.get(suffix, {})
    path = save(tmp_path, frames[0], suffix, save_all=True, append_images=frames[1:], duration=100, **how)
    got = read(path)
    assert len(got) == 3
    assert got.pixels[:, 2, 2].tolist() == [[255] * 3] * 3
    assert got.pixels[:, 30, 30].tolist() == [[255, 0, 0]] * 3
    assert got.pixels[:, 20, 2].tolist() == [[255, 0, 0]] * 2 + [[255] * 3]


def test_one_frame_gif_and_webp_are_stills(tmp_path):
    for suffix in (".gif", ".webp"):
        assert read(save(tmp_path, Image.fromarray(numbered(1)), suffix), ONE).info.kind == "image"


def test_pages_are_not_frames(tmp_path):
    pages = [Image.fromarray(numbered(number)) for number in range(3)]
    got = read(save(tmp_path, pages[0], ".tif", save_all=True, append_images=pages[1:]), ONE)
    assert got.info.kind == "image"
    assert np.array_equal(got.pixels[0], numbered(0))
    assert "pages" in got.report.warnings[0]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_a_cut_still_is_refused(tmp_path, suffix):
    path = save(tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)), suffix)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match=r"picture|decoded"):
        read(path, ONE)


def test_a_cut_animation_gives_its_beginning(tmp_path):
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)) for _ in range(6)]
    path = save(tmp_path, frames[0], ".png", save_all=True, append_images=frames[1:], duration=100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    got = read(path)
    assert 1 <= len(got) < 6
    assert np.array_equal(got.pixels[0], np.asarray(frames[0]))
    assert got.report.bad_packets == 1


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    body = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + body + struct.pack(">I4s", len(data), b"IDAT") + data + b"\0\0\0\0"


@pytest.mark.parametrize("size", [(16384, 16384), (60_000, 60_000)])
def test_a_size_bomb_is_refused_by_its_header(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(*size))
    with pytest.raises(MediaError, match="--limit-pixels"):
        read(path, ONE)


def test_the_pixel_limit_can_be_lowered_and_raised(tmp_path):
    path = save(tmp_path, Image.new("RGB", (100, 100)))
    with pytest.raises(
        MediaError, match="is over the limit of 9,999 pixels by its header; raise it with --limit-pixels"
    ):
        read(path, ONE, limits=Limits(max_pixels=9_999))
    assert len(read(path, ONE, limits=Limits(max_pixels=10_000))) == 1
    assert Image.MAX_IMAGE_PIXELS != 10_000


def test_heif_needs_its_extra(tmp_path, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    path = save(tmp_path, Image.fromarray(numbered(5)), ".heic")
    assert read(path, ONE).info.codec == "heif"
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(MediaError, match=r'pip install "tokcli\[heif\]"'):
        read(path, ONE)


@pytest.mark.parametrize(
    "matrix, expected",
    [
        # a b c d of the matrix; a stored point (p, q) goes to (a p + c q, b p + d q).
        ((1, 0, 0, 1), lambda image: image),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
        ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
        ((1, 0, 0, -1), lambda image: image[::-1]),
        ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    ],
)
def test_display_matrices(matrix, expected):
    a, b, c, d = (value << 16 for value in matrix)
    orientation = from_display_matrix(struct.pack("=9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))
    image = numbered(9)
    assert np.array_equal(orientation.apply(image), expected(image))
    assert orientation.size(96, 128) == expected(image).shape[:2]
