"""Transparent pixels over a fixed colour."""

from __future__ import annotations

import numpy as np

from tokcli.media.orientation import Pixels

BACKGROUND = 255
"""Grey level behind transparent pixels: white, as Qwen's own loader (qwen-vl-utils) and web pages have it."""


def composite(rgba: Pixels) -> Pixels:
    """Straight alpha uint8 (H, W, 4) over the background: uint8 (H, W, 3), rounded to nearest."""
    alpha = rgba[..., 3:].astype(np.uint16)
    mixed = rgba[..., :3] * alpha + BACKGROUND * (255 - alpha) + 127
    return (mixed // 255).astype(np.uint8)
