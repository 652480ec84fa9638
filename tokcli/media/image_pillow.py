"""Stills and animated pictures through Pillow."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError

from tokcli.errors import MediaError
from tokcli.media.animation_pillow import AnimationReader
from tokcli.media.limits import Limits
from tokcli.media.orientation import Pixels
from tokcli.media.pillow_rgb import to_rgb
from tokcli.media.reader import DecodeReport, FrameSize, MediaReader
from tokcli.media.sampling import Sampling
from tokcli.types import Frames, MediaInfo

_EXIF_ORIENTATION = 0x0112
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"hevc", b"hevx")


def open_pillow(path: str, sampling: Sampling, limits: Limits, frame_size: FrameSize | None) -> MediaReader | None:
    """A reader for a still or an animation; None for an animated GIF, which the video path decodes better.

    Raises:
        MediaError: Pillow does not know the format, or cannot decode it, or it is over a limit.
    """
    report = DecodeReport()
    with _bounded(limits):
        image = _open(path)
        try:
            limits.check_size(*image.size)
            if _is_animated(image):
                if image.format == "GIF":
                    image.close()
                    return None
                return AnimationReader(image, sampling, limits, frame_size, report)
            with image:
                return StillReader(image, frame_size, report)
        except BaseException:
            image.close()
            raise


def describe_picture(path: str, limits: Limits) -> dict[str, Any] | None:
    """What the header says, JSON-able; None for an animated GIF, which is read as video. Raises ``MediaError``."""
    with _bounded(limits), _open(path) as image:
        limits.check_size(*image.size)
        animated = _is_animated(image)
        if animated and image.format == "GIF":
            return None
        return {
            "format": image.format,
            "mode": image.mode,
            "width": image.width,
            "height": image.height,
            "limit_pixels": limits.max_pixels,
            "animated": animated,
            "exif_orientation": _exif_orientation(image),
        }


def _exif_orientation(image: Any) -> int | str | None:
    try:
        orientation: int | None = image.getexif().get(_EXIF_ORIENTATION)
    except Exception as error:  # reading it decodes a PNG, and parses what anybody may have written
        return f"cannot be read: {error or type(error).__name__}"
    return orientation


class StillReader(MediaReader):
    """One picture, decoded on opening."""

    def __init__(self, image: Any, frame_size: FrameSize | None, report: DecodeReport) -> None:
        self.report = report
        codec = (image.format or "unknown").lower()
        if getattr(image, "n_frames", 1) > 1:
            report.warn("holds several pages; only the first is taken")
        self._image = to_rgb(_upright(_load(image), report))
        self.info = MediaInfo(
            kind="image",
            width=self._image.width,
            height=self._image.height,
            num_frames=1,
            sample_fps=None,
            duration_seconds=0.0,
            source_fps=None,
            codec=codec,
            decoder=f"pillow {PIL.__version__}",
        )
        self._size = frame_size(self.info) if frame_size else (self._image.height, self._image.width)

    def _chunks(self, max_frames: int) -> Iterator[Frames]:
        height, width = self._size
        image = self._image
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        pixels: Pixels = np.asarray(image, dtype=np.uint8)[None]
        self.report.decoded_frames = 1
        yield Frames(pixels, np.zeros(1, np.float64), np.zeros(1, np.int64))

    def close(self) -> None:
        self._image.close()


def _open(path: str) -> Any:
    if _is_heif(path):
        try:
            import pillow_heif
        except ImportError:
            raise MediaError('is a HEIF picture; reading those needs `pip install "tokcli[heif]"`') from None
        pillow_heif.register_heif_opener()
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        raise MediaError("is not a picture that Pillow can read; the file may be cut or damaged") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = f"{Image.MAX_IMAGE_PIXELS:,}"  # ours, while files are opened
        raise MediaError(f"is over the limit of {limit} pixels by its header; raise it with --limit-pixels") from None
    except Exception as error:  # Pillow's plugins raise whatever the damage leads to
        raise MediaError(f"cannot be opened as a picture: {error or type(error).__name__}") from None


def _load(image: Any) -> Any:
    try:
        image.load()
    except Exception as error:
        raise MediaError(f"cannot be decoded as {image.format}: {error or type(error).__name__}") from None
    return image


def _upright(image: Any, report: DecodeReport) -> Any:
    """The picture turned as its EXIF orientation says; malformed EXIF is a warning, the pixels are still good."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:
        report.warn(f"EXIF cannot be read, orientation not applied: {error or type(error).__name__}")
        return image


def _is_animated(image: Any) -> bool:
    if image.format not in ("GIF", "PNG", "WEBP", "AVIF"):
        return False
    try:
        frames = int(getattr(image, "n_frames", 1)) - bool(image.info.get("default_image"))
    except Exception:  # counting a GIF's frames walks through a file that may be cut
        return False
    return frames > 1


def _is_heif(path: str) -> bool:
    with open(path, "rb") as file:  # noqa: PTH123 - takes surrogate escapes as they are
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


@contextmanager
def _bounded(limits: Limits) -> Iterator[None]:
    """Pillow's own guard set to our limit, and its warning made an error."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = limits.max_pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
