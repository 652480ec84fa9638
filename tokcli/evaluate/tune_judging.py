"""Which answers a setting keeps: those that all tokens give, and that are right where that is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokcli.evaluate.judging import AskOptions, Judged
from tokcli.evaluate.questions import Question
from tokcli.evaluate.scoring import is_right, likeliest
from tokcli.models import Answer, LanguageModel
from tokcli.models.asking import greedy_is_likeliest
from tokcli.types import EncodedItem


@dataclass(frozen=True)
class _Expected:
    """A question that counts, and what all tokens answer."""

    question: Question
    text: str = ""
    token_ids: tuple[int, ...] = ()
    """An end token included, where one was reached; nothing for a question with options."""


class KeepsAnswers:
    """Judges only the questions that count: with right answers those that all tokens get right, else all of them.

    An open answer is kept if it is right (or, without right answers, equal to the one from all tokens) after
    :func:`tokcli.evaluate.scoring.normalised`. That the model would answer with certain tokens, the right ones or those
    that all tokens gave, is seen from one pass over them, at half the price of answering; only where it would not is it
    asked.

    ``model`` gives the language model, when the first question is put.
    """

    def __init__(self, model: Callable[[], LanguageModel], options: AskOptions, *, labelled: bool) -> None:
        self.model, self.options, self.labelled = model, options, labelled
        self._expected: dict[str, list[_Expected]] = {}

    def judge(
        self, item: EncodedItem | None, questions: Sequence[Question], full: Callable[[], EncodedItem]
    ) -> list[Judged]:
        """A result for each question that counts; its score is 1 where the answer was kept."""
        assert item is not None
        if item.id not in self._expected:
            self._expected[item.id] = self._of_full(full(), questions)
        expected = self._expected[item.id]
        choices = [each.question for each in expected if not each.token_ids]
        return [*self._opened(item, [each for each in expected if each.token_ids]), *self._chosen(item, choices)]

    def _of_full(self, item: EncodedItem, questions: Sequence[Question]) -> list[_Expected]:
        choices = [question for question in questions if question.options and self.labelled]
        open_ones = [question for question in questions if question not in choices]
        guesses = [_Expected(question, *self._right(question)) for question in open_ones] if self.labelled else []
        found = [guess for guess, same in zip(guesses, self._would_say(item, guesses)) if same]
        known = {guess.question.number for guess in found}
        others = [question for question in open_ones if question.number not in known]
        for question, answer in zip(others, self._ask(item, others)):
            if not self.labelled or is_right(answer.text, question.answers):
                found.append(_Expected(question, answer.text, answer.token_ids))
        right = [question for question, judged in zip(choices, self._chosen(item, choices)) if judged.score]
        return found + [_Expected(question) for question in right]

    def _right(self, question: Question) -> tuple[str, tuple[int, ...]]:
        """The right answer as the model would write it, if it writes it as the file does."""
        model, text = self.model(), question.answers[0]
        return text, (*model.tokenizer(text, add_special_tokens=False).input_ids, *sorted(model.end_ids())[:1])

    def _opened(self, item: EncodedItem, expected: Sequence[_Expected]) -> list[Judged]:
        same = self._would_say(item, expected)
        others = [each.question for each, kept in zip(expected, same) if not kept]
        again = {question.number: answer.text for question, answer in zip(others, self._ask(item, others))}
        judged = []
        for each in expected:
            question, text = each.question, again.get(each.question.number, each.text)
            kept = question.number not in again or is_right(text, question.answers if self.labelled else (each.text,))
            judged.append(Judged(question.number, text, float(kept)))
        return judged

    def _would_say(self, item: EncodedItem, expected: Sequence[_Expected]) -> list[bool]:
        """Whether the greedy answers are, token by token, the expected ones; any end token will do at the end."""
        if not expected:
            return []
        model = self.model()
        if not greedy_is_likeliest(model):
            return [False] * len(expected)
        steps = model.distributions(
            item,
            [each.question.text for each in expected],
            [each.token_ids for each in expected],
            scheme=self.options.scheme,
            system=self.options.system,
        )
        ends, limit = model.end_ids(), self.options.max_new_tokens
        return [
            len(each.token_ids) <= limit
            and all(
                said == token or {said, token} <= ends
                for said, token in zip(step.argmax(dim=-1).tolist(), each.token_ids)
            )
            for each, step in zip(expected, steps)
        ]

    def _ask(self, item: EncodedItem, questions: Sequence[Question]) -> list[Answer]:
        if not questions:
            return []
        return self.model().ask(
            item,
            [question.text for question in questions],
            max_new_tokens=self.options.max_new_tokens,
            scheme=self.options.scheme,
            system=self.options.system,
        )

    def _chosen(self, item: EncodedItem, questions: Sequence[Question]) -> list[Judged]:
        if not questions:
            return []
        offered = [question.options for question in questions]
        scores = self.model().log_likelihoods(
            item,
            [question.text for question in questions],
            offered,
            scheme=self.options.scheme,
            system=self.options.system,
        )
        chosen = [likeliest([score.total for score in row]) for row in scores]
        return [
            Judged(question.number, question.options[number], float(number == question.correct))
            for question, number in zip(questions, chosen)
        ]
