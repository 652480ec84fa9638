"""What counts as a right answer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

ARTICLES = frozenset({"a", "an", "the"})
_UP_TO_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
NUMBERS = {word: str(number) for number, word in enumerate(_UP_TO_TWENTY.split())}
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_APOSTROPHES = re.compile(r"['’`]")
# A point between digits and a minus before one are part of a number; all else that is no letter or digit separates.
_SEPARATORS = re.compile(r"(?!(?<=\d)\.(?=\d))(?!(?<!\w)-(?=\d))[^\w]|_")


def normalised(text: str) -> str:
    """An open answer in the form in which answers are compared.

    In this order: compatibility forms of Unicode become plain ones (NFKC); case is folded; apostrophes and the commas
    of thousands go; every other character that is neither letter nor digit becomes a space, but for a point between
    two digits and a minus before a digit; the number words zero to twenty become digits; the articles a, an, the go,
    unless nothing else is there; words are parted by one space. "The  Red-Square!" is "red square", "Three" is "3",
    "1,000.5" is "1000.5", "A" is "a".
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = _SEPARATORS.sub(" ", _THOUSANDS.sub("", _APOSTROPHES.sub("", text)))
    words = [NUMBERS.get(word, word) for word in text.split()]
    return " ".join([word for word in words if word not in ARTICLES] or words)


def is_right(answer: str, accepted: Sequence[str]) -> bool:
    """Whether the answer equals one of the accepted ones after :func:`normalised`; being part of one does not do."""
    return normalised(answer) in {normalised(text) for text in accepted}


def likeliest(totals: Sequence[float], lengths: Sequence[int] | None = None) -> int:
    """The option with the highest log-probability, per character where ``lengths`` are given; ties to the first."""
    scores = totals if lengths is None else [total / max(1, length) for total, length in zip(totals, lengths)]
    return max(range(len(scores)), key=lambda number: (scores[number], -number))
