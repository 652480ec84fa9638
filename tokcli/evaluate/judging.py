"""What a language model makes of an item's tokens, question by question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from tokcli.evaluate.questions import Question
from tokcli.evaluate.scoring import is_right, likeliest, normalised
from tokcli.models import Answer, LanguageModel
from tokcli.types import EncodedItem


@dataclass(frozen=True)
class Judged:
    """How one question went."""

    number: int
    """The question's."""
    text: str
    """The answer, or the option that was chosen."""
    score: float
    """1 if it was right (or equal to the answer from all tokens), else 0."""
    per_character: float | None = None
    """The same with options compared by log-probability per character; None for open questions."""
    divergence: float | None = None
    """Mean KL divergence in nats, only against all tokens."""


@dataclass(frozen=True)
class AskOptions:
    """How questions are put."""

    max_new_tokens: int = 16
    scheme: str = "original"
    system: str | None = None


class AgainstLabels:
    """Judges by the right answers that the questions come with.

    ``model`` gives the language model, when the first question is put: an evaluation that is complete loads none.
    A question with options is given as it stands, without the options, and the likeliest one is the answer; an open
    one is answered greedily and compared with the accepted answers.
    """

    def __init__(self, model: Callable[[], LanguageModel], options: AskOptions) -> None:
        self.model, self.options = model, options

    def judge(
        self, item: EncodedItem | None, questions: Sequence[Question], full: Callable[[], EncodedItem]
    ) -> list[Judged]:
        """In the order of the questions."""
        open_ones = [question for question in questions if not question.options]
        choices = [question for question in questions if question.options]
        judged = {result.number: result for result in (*self._asked(item, open_ones), *self._chosen(item, choices))}
        return [judged[question.number] for question in questions]

    def _asked(self, item: EncodedItem | None, questions: Sequence[Question]) -> list[Judged]:
        if not questions:
            return []
        answers = _ask(self.model(), item, questions, self.options)
        return [
            Judged(question.number, answer.text, float(is_right(answer.text, question.answers)))
            for question, answer in zip(questions, answers)
        ]

    def _chosen(self, item: EncodedItem | None, questions: Sequence[Question]) -> list[Judged]:
        if not questions:
            return []
        scores = self.model().log_likelihoods(
            item,
            [question.text for question in questions],
            [question.options for question in questions],
            scheme=self.options.scheme,
            system=self.options.system,
        )
        judged = []
        for question, offered in zip(questions, scores):
            totals = [score.total for score in offered]
            chosen = likeliest(totals)
            by_character = likeliest(totals, [len(option) for option in question.options])
            judged.append(
                Judged(
                    question.number,
                    question.options[chosen],
                    float(chosen == question.correct),
                    float(by_character == question.correct),
                )
            )
        return judged


class AgainstFull:
    """Judges by what the same model says from all tokens: equal answers, and how far its expectations moved.

    The divergence is KL(full || compressed) of the next-token distributions, in nats, in the mean over the tokens of
    the model's own greedy answer from all tokens.
    """

    def __init__(self, model: Callable[[], LanguageModel], options: AskOptions) -> None:
        self.model, self.options = model, options
        self._reference: tuple[EncodedItem, list[int], list[Answer], list[torch.Tensor]] | None = None

    def judge(
        self, item: EncodedItem | None, questions: Sequence[Question], full: Callable[[], EncodedItem]
    ) -> list[Judged]:
        """In the order of the questions."""
        answers, expected = self._of_full(full(), questions)
        replies = [answer.token_ids for answer in answers]
        got = self._distributions(item, questions, replies)
        said = _ask(self.model(), item, questions, self.options)
        return [
            Judged(
                question.number,
                answer.text,
                float(normalised(answer.text) == normalised(reference.text)),
                divergence=mean_divergence(full_tokens, compressed),
            )
            for question, answer, reference, full_tokens, compressed in zip(questions, said, answers, expected, got)
        ]

    def _of_full(self, item: EncodedItem, questions: Sequence[Question]) -> tuple[list[Answer], list[torch.Tensor]]:
        """Answers from all tokens, computed once for an item."""
        numbers = [question.number for question in questions]
        if self._reference is None or self._reference[0] is not item or self._reference[1] != numbers:
            answers = _ask(self.model(), item, questions, self.options)
            expected = self._distributions(item, questions, [answer.token_ids for answer in answers])
            self._reference = (item, numbers, answers, expected)
        return self._reference[2], self._reference[3]

    def _distributions(
        self, item: EncodedItem | None, questions: Sequence[Question], replies: Sequence[Sequence[int]]
    ) -> list[torch.Tensor]:
        texts = [question.text for question in questions]
        return self.model().distributions(item, texts, replies, scheme=self.options.scheme, system=self.options.system)


class Judge(Protocol):
    """Anything that can say how questions went."""

    def judge(
        self, item: EncodedItem | None, questions: Sequence[Question], full: Callable[[], EncodedItem]
    ) -> list[Judged]: ...


def mean_divergence(full: torch.Tensor, compressed: torch.Tensor) -> float:
    """Mean over n steps of KL(full || compressed) in nats; both float32 (n, V) log-probabilities. Never below 0."""
    if not len(full):
        return 0.0
    # Where full says impossible, its log is -inf and 0 * inf would be NaN; such tokens add nothing.
    terms = torch.where(full > -torch.inf, full.exp() * (full - compressed), 0.0)
    return max(0.0, float(terms.sum(dim=-1, dtype=torch.float64).mean()))


def _ask(
    model: LanguageModel, item: EncodedItem | None, questions: Sequence[Question], options: AskOptions
) -> list[Answer]:
    return model.ask(
        item,
        [question.text for question in questions],
        max_new_tokens=options.max_new_tokens,
        scheme=options.scheme,
        system=options.system,
    )
