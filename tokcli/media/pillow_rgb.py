"""Any Pillow mode to 8-bit RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tokcli.errors import MediaError
from tokcli.media.alpha import composite


def to_rgb(image: Any) -> Any:
    """A picture in mode RGB: alpha over white, 16-bit and float values scaled and not clipped.

    Raises:
        MediaError: Pillow cannot convert the mode.
    """
    try:
        if image.mode.startswith(("I", "F")):
            image = Image.fromarray(_to_8_bit(np.asarray(image), image.mode))
        if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
            return Image.fromarray(composite(np.asarray(image.convert("RGBA"))))
        return image.convert("RGB")
    except (ValueError, OSError) as error:
        raise MediaError(f"has the colour mode {image.mode}, which cannot be converted to RGB: {error}") from None


def _to_8_bit(values: npt.NDArray[Any], mode: str) -> npt.NDArray[np.uint8]:
    """Grey values (H, W) of a deep mode to 8 bits.

    Deep modes do not say what white is: it is the smallest of 1 (F only), 255 and 65535 that holds all values, because
    8-bit data in 16-bit files is common. What is negative or beyond that is stretched between its extremes.
    """
    numbers = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(numbers.min()), float(numbers.max())
    whites = (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)
    white = next((white for white in whites if high <= white), None)
    if low < 0 or white is None:
        numbers, white = numbers - low, max(high - low, 1e-12)
    return np.rint(numbers * 255 / white).astype(np.uint8)
