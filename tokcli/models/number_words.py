"""Whole numbers as English words, as SmolVLM's prompts spell the number of frames (the package num2words's style)."""

from __future__ import annotations

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_SMALL = _DIGITS + _TEENS
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def in_words(number: int) -> str:
    """The words for ``number``, 0 up to 999,999.

    >>> in_words(1234)
    'one thousand, two hundred and thirty-four'
    """
    if number < 20:
        return _SMALL[number]
    if number < 100:
        ten, one = divmod(number, 10)
        return _TENS[ten - 2] + (f"-{_SMALL[one]}" if one else "")
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    many, rest = divmod(number, size)
    words = f"{in_words(many)} {name}"
    if not rest:
        return words
    return f"{words}{' and ' if rest < 100 else ', '}{in_words(rest)}"
