"""Letters and digits as 5 x 7 dots: those that stay apart from one another when a codec has smoothed them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

_ROWS = {
    "0": "01110 10001 10011 10101 11001 10001 01110",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00010 00100 01000 11111",
    "3": "11111 00010 00100 00010 00001 10001 01110",
    "4": "00010 00110 01010 10010 11111 00010 00010",
    "5": "11111 10000 11110 00001 00001 10001 01110",
    "6": "00110 01000 10000 11110 10001 10001 01110",
    "7": "11111 00001 00010 00100 01000 01000 01000",
    "8": "01110 10001 10001 01110 10001 10001 01110",
    "9": "01110 10001 10001 01111 00001 00010 01100",
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "C": "01110 10001 10000 10000 10000 10001 01110",
    "E": "11111 10000 10000 11110 10000 10000 11111",
    "F": "11111 10000 10000 11110 10000 10000 10000",
    "H": "10001 10001 10001 11111 10001 10001 10001",
    "K": "10001 10010 10100 11000 10100 10010 10001",
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "T": "11111 00100 00100 00100 00100 00100 00100",
    "U": "10001 10001 10001 10001 10001 10001 01110",
    "X": "10001 10001 01010 00100 01010 10001 10001",
}

DIGITS = tuple(name for name in _ROWS if name.isdigit())
LETTERS = tuple(name for name in _ROWS if name.isalpha())
CHARACTERS = DIGITS + LETTERS

DOTS: Mapping[str, npt.NDArray[np.bool_]] = {
    name: np.array([[dot == "1" for dot in row] for row in rows.split()]) for name, rows in _ROWS.items()
}
"""bool (7, 5) of each character."""
