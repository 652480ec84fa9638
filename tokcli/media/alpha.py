"""Transparent pixels over a fixed colour."""

from __future__ import annotations

import numpy as np

from tokcli.media.orientation import Pixels

BACKGROUND = 255
"""Grey level behind transparent pixels: white, as Qwen's own loader (qwen-vl-utils) and web pages have it."""

# A large still is not held several times over in wider numbers.
_PIXELS_AT_ONCE = 1 << 20


def composite(rgba: Pixels) -> Pixels:
    """Straight alpha uint8 (H, W, 4) over the background: uint8 (H, W, 3), rounded to nearest."""
    height, width = rgba.shape[:2]
    result = np.empty((height, width, 3), np.uint8)
    rows = max(1, _PIXELS_AT_ONCE // max(1, width))
    for top in range(0, height, rows):
        part = rgba[top : top + rows]
        alpha = part[..., 3:].astype(np.uint16)
        mixed = part[..., :3] * alpha + BACKGROUND * (255 - alpha) + 127
        result[top : top + rows] = mixed // 255
    return result
