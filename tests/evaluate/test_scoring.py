"""Which answers count as right, by hand."""

from __future__ import annotations

import pytest

from tokcli.evaluate.scoring import is_right, likeliest, normalised


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("The  Red-Square!", "red square"),
        ("a dog, an owl and the cat.", "dog owl and cat"),
        ("Three", "3"),
        ("twenty", "20"),
        ("1,000.5 m", "1000.5 m"),
        ("1,2", "1 2"),
        ("3.", "3"),
        ("-5 °C", "-5 c"),
        ("co-op", "co op"),
        ("It's", "its"),
        ("A", "a"),  # a letter that was read, not an article
        ("the", "the"),
        ("snake_case", "snake case"),
        ("１２ ﬁsh", "12 fish"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("", ""),
        ("?!", ""),
    ],
)
def test_normal_form(text: str, plain: str) -> None:
    assert normalised(text) == plain
    assert normalised(plain) == plain


def test_equal_to_one_accepted_answer_and_not_a_part_of_it() -> None:
    assert is_right("Two.", ["2", "a pair"])
    assert is_right("pair", ["2", "a pair"])
    assert not is_right("red square", ["red"])
    assert not is_right("red", ["red square"])
    assert not is_right("", ["red"])


def test_likeliest_option_with_and_without_length() -> None:
    # By hand: -6 / 12 = -0.5 is more a character than -4 / 4 = -1.
    assert likeliest([-4.0, -6.0]) == 0
    assert likeliest([-4.0, -6.0], [4, 12]) == 1
    assert likeliest([-1.0, -1.0]) == 0
