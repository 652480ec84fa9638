"""A guess knows what was asked about other items, and nothing of its own."""

import time

from tokcli.evaluate.guessing import Guesser
from tokcli.evaluate.questions import Question


def question(number: int, text: str, answer: str, kind: str = "color") -> Question:
    return Question(number, text, (), (answer,), kind=kind)


ASKED = {
    "a": [question(0, "Which color?", "red"), question(1, "How many?", "2", "count")],
    "b": [question(2, "Which color?", "blue")],
    "c": [question(3, "Which color?", "blue"), question(4, "What color is it?", "white")],
    "d": [question(5, "Which color?", "red"), question(6, "Where?", "left", "place")],
}


def guesses(item: str) -> list[str]:
    guesser = Guesser(ASKED)
    return [guesser.guess(item, question) for question in ASKED[item]]


def test_the_most_frequent_answer_of_the_others_to_the_same_words() -> None:
    assert guesses("a")[0] == "blue"  # blue, blue, red are left
    assert guesses("b") == ["red"]  # red, blue, red
    assert guesses("d")[0] == "blue"


def test_then_of_the_same_kind() -> None:
    assert guesses("c")[1] == "red"  # red, blue, red, without the two of c


def test_nothing_where_nobody_else_is_asked_like_it() -> None:
    assert guesses("a")[1] == ""
    assert guesses("d")[1] == ""


def test_a_question_of_ones_own_is_no_help() -> None:
    """A fair coin, ten times each way: whoever guesses from all answers is right half the time, this one never."""
    asked = {str(n): [question(n, "Heads?", "yes" if n % 2 else "no")] for n in range(20)}
    guesser = Guesser(asked)
    right = sum(guesser.guess(item, asked[item][0]) == asked[item][0].answers[0] for item in asked)
    assert right == 0  # one less of the own answer is left, so the other one is guessed


def test_ties_go_to_the_earliest() -> None:
    asked = {str(n): [question(n, "Which?", answer)] for n, answer in enumerate(["red", "blue", "blue", "red", "red"])}
    assert [Guesser(asked).guess(item, asked[item][0]) for item in asked] == ["red", "red", "red", "red", "red"]


def test_many_answers_that_nobody_else_gives_are_guessed_at_once() -> None:
    asked = {str(n): [question(n, f"What is this, {n}?", f"thing {n}")] for n in range(4000)}
    started = time.monotonic()
    guesser = Guesser(asked)
    found = [guesser.guess(item, asked[item][0]) for item in asked]
    assert time.monotonic() - started < 2, "in a moment, not each by a look at all answers"
    assert found == ["thing 1", *["thing 0"] * 3999]
