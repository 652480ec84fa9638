"""Numbers as words."""

from __future__ import annotations

import pytest

from tokcli.models.number_words import in_words

# As num2words 0.5.14 prints them.
WORDS = {
    0: "zero",
    8: "eight",
    13: "thirteen",
    20: "twenty",
    64: "sixty-four",
    99: "ninety-nine",
    100: "one hundred",
    101: "one hundred and one",
    350: "three hundred and fifty",
    999: "nine hundred and ninety-nine",
    1000: "one thousand",
    1005: "one thousand and five",
    1100: "one thousand, one hundred",
    3600: "three thousand, six hundred",
    12345: "twelve thousand, three hundred and forty-five",
    100000: "one hundred thousand",
}


@pytest.mark.parametrize("number", WORDS)
def test_words(number: int) -> None:
    assert in_words(number) == WORDS[number]
