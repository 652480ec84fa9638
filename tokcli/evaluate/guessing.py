"""What is right without a model: the most frequent answer to the same question."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from tokcli.evaluate.judging import Judged
from tokcli.evaluate.questions import Question
from tokcli.evaluate.runner import Outcome
from tokcli.evaluate.scoring import is_right, normalised


def most_frequent_answers(questions: Sequence[Question]) -> dict[str, str]:
    """For every question text the answer that is right most often in these questions; ties to the earliest.

    The guess is taken from the very answers that it is scored on, so it is the best that can be done blindly.
    """
    tallies: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        tallies[question.text].update(dict.fromkeys((normalised(answer) for answer in question.answers), 1))
    return {text: tally.most_common(1)[0][0] for text, tally in tallies.items() if tally}


def guessed(asked: Mapping[str, Sequence[Question]], like: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes of guessing, an item each, in the order of ``like``."""
    guesses = most_frequent_answers([question for questions in asked.values() for question in questions])
    outcomes = []
    for outcome in like:
        judged = []
        for question in asked[outcome.item]:
            guess = guesses.get(question.text, "")
            judged.append(Judged(question.number, guess, float(is_right(guess, question.answers))))
        outcomes.append(
            Outcome(outcome.item, 0, outcome.source_tokens, outcome.source_bytes, None, 0.0, 0.0, tuple(judged))
        )
    return outcomes
