"""What is right without a model: the most frequent answer to the same question about other items."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from tokcli.evaluate.judging import Judged
from tokcli.evaluate.questions import Question
from tokcli.evaluate.runner import Outcome
from tokcli.evaluate.scoring import is_right, normalised


class Guesser:
    """Knows all questions with their answers, and guesses each without those about its own item.

    The guess is the answer that is right most often where the same words were asked, else where the same kind of
    question was; ties go to the earliest. Whoever guesses from the answers that it is scored on looks too good: a
    question that is asked once would always be right.
    """

    def __init__(self, asked: Mapping[str, Sequence[Question]]) -> None:
        self._all: dict[str, Counter[str]] = defaultdict(Counter)
        self._own: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._orders: dict[str, tuple[list[str], dict[str, int]]] = {}
        for item, questions in asked.items():
            for question in questions:
                answers = dict.fromkeys((normalised(answer) for answer in question.answers), 1)
                for group in _groups(question):
                    self._all[group].update(answers)
                    self._own[item, group].update(answers)

    def guess(self, item: str, question: Question) -> str:
        """The guess, "" where nothing like it is asked about other items."""
        for group in _groups(question):
            counts, own = self._all[group], self._own[item, group]
            ranked, places = self._order(group)
            # Only the item's own answers count for less than their rank, so few have to be looked at.
            first = next((answer for answer in ranked if answer not in own), None)
            answers = sorted([*own, *([] if first is None else [first])], key=places.__getitem__)
            left = {answer: counts[answer] - own[answer] for answer in answers}
            if any(left.values()):
                return max(left, key=left.__getitem__)
        return ""

    def _order(self, group: str) -> tuple[list[str], dict[str, int]]:
        """A group's answers, the most frequent first, and the place of each by when it was first given."""
        if group not in self._orders:
            counts = self._all[group]
            ranked = [answer for answer, _ in counts.most_common()]
            self._orders[group] = ranked, {answer: place for place, answer in enumerate(counts)}
        return self._orders[group]


def _groups(question: Question) -> tuple[str, str]:
    return f"text {question.text}", f"kind {question.kind}"


def guessed(asked: Mapping[str, Sequence[Question]], like: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes of guessing, an item each, in the order of ``like``."""
    guesser = Guesser(asked)
    outcomes = []
    for outcome in like:
        judged = []
        for question in asked[outcome.item]:
            guess = guesser.guess(outcome.item, question)
            judged.append(Judged(question.number, guess, float(is_right(guess, question.answers))))
        outcomes.append(
            Outcome(outcome.item, 0, outcome.source_tokens, outcome.source_bytes, None, 0.0, 0.0, tuple(judged))
        )
    return outcomes
