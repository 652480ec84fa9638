"""Questions in windows: their items are read once, conversations go turn by turn, and each ends as a reply."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from tokcli.errors import CacheError, IntegrityError, UsageError
from tokcli.methods import Query
from tokcli.models import Answer, Choice, LanguageModel, Request, problem_of
from tokcli.pipeline.prompts import Question
from tokcli.pipeline.reading import Reader
from tokcli.pipeline.subjects import Subject
from tokcli.recipe import InferRecipe
from tokcli.types import EncodedItem

WINDOW = {"cpu": 8, "cuda": 32}
"""Questions in one batch at most: a larger one is no faster, and what is in it is lost when the run is stopped."""
MOST_OF_ONE = 256
"""Questions about the same items that are answered before any is written."""


@dataclass
class Reply:
    """How a question went."""

    question: Question
    items: Sequence[EncodedItem] = ()
    """As the model saw them."""
    history: tuple[tuple[str, str], ...] = ()
    """What was asked and answered before."""
    answer: Answer | None = None
    error: str | None = None
    seconds: float = field(default=0.0)
    """For all turns together."""


class Asker:
    """Puts questions to a model as a recipe says."""

    def __init__(
        self,
        model: LanguageModel,
        reader: Reader,
        subjects: Sequence[Subject],
        recipe: InferRecipe,
        choice: Choice,
        schema: object,
    ) -> None:
        """``schema`` is what ``choice.schema`` is the text of."""
        self.model, self.reader, self.recipe = model, reader, recipe
        self.choice, self.schema = choice, schema
        self._subjects = {subject.id: subject for subject in subjects}
        # Prompts of their own for each item may be any number: few are asked again, and not long after.
        self._query = lru_cache(MOST_OF_ONE)(lambda text: Query(model.text_embeddings(text)))

    def replies(self, questions: Sequence[Question]) -> Iterator[list[Reply]]:
        """All replies, as many at once as are there. Raises ``IntegrityError`` for a damaged cache."""
        size = self.recipe.batch_size or WINDOW.get(self.model.model.device.type, WINDOW["cpu"])
        for window in windows(questions, size):
            yield from self._window(window)

    def _window(self, window: Sequence[Question]) -> Iterator[list[Reply]]:
        replies = [Reply(question, error=question.problem) for question in window]
        self._read(replies)
        longest = max(len(question.prompt.before) for question in window)
        for turn in range(longest):
            self._turn(turn, [reply for reply in replies if turn < len(reply.question.prompt.before)])
        if failed := [reply for reply in replies if reply.error is not None]:
            yield failed
        going = [reply for reply in replies if reply.error is None]
        yield from self._ask(going, [reply.question.prompt.text for reply in going], self.choice)

    def _read(self, replies: Sequence[Reply]) -> None:
        """Give each reply its items, the same objects to all that ask about the same ones."""
        known: dict[str, Sequence[EncodedItem] | str] = {}
        for reply in replies:
            if reply.error is not None:
                continue
            subject = self._subjects[reply.question.item_id]
            if subject.id not in known:
                try:
                    known[subject.id] = [self.reader.read(item_id) for item_id in subject.items]
                except IntegrityError:
                    raise
                except (UsageError, CacheError) as error:
                    known[subject.id] = str(error)
            found = known[subject.id]
            if isinstance(found, str):
                reply.error = found
            else:
                reply.items = found
                self._focus(reply)

    def _focus(self, reply: Reply) -> None:
        if self.reader.selection is None:
            return
        query = self._query(reply.question.prompt.text)
        try:
            reply.items = [self.reader.focus(item, query) for item in reply.items]
        except UsageError as error:
            reply.error = str(error)

    def _turn(self, turn: int, replies: Sequence[Reply]) -> None:
        """The ``turn``-th question of conversations, to be answered by the model or by who wrote them."""
        asked = []
        for reply in replies:
            text, given = reply.question.prompt.before[turn]
            if given is not None:
                reply.history += ((text, given),)
            elif reply.error is None:
                asked.append(reply)
        texts = [reply.question.prompt.before[turn][0] for reply in asked]
        for new in self._ask(asked, texts, replace(self.choice, schema=None)):
            for reply in new:
                if reply.answer is not None:
                    reply.history += ((reply.question.prompt.before[turn][0], reply.answer.text),)
                    reply.answer = None

    def _ask(self, replies: Sequence[Reply], texts: Sequence[str], choice: Choice) -> Iterator[list[Reply]]:
        requests = [
            Request(reply.items, text, reply.question.prompt.system or self.recipe.system, reply.history)
            for reply, text in zip(replies, texts)
        ]
        results = self.model.answer(
            requests, max_new_tokens=self.recipe.max_new_tokens, scheme=self.recipe.positions, choice=choice
        )
        for new in results:
            for number, result in new.items():
                reply = replies[number]
                if isinstance(result, Answer):
                    reply.answer = result
                    reply.seconds += result.seconds
                    reply.error = self._problem(result) if choice.schema is not None else None
                else:
                    reply.error = str(result)
            yield [replies[number] for number in new]

    def _problem(self, answer: Answer) -> str | None:
        if answer.finish_reason == "length":
            return f"the answer was cut after {len(answer.token_ids)} tokens, inside its JSON; raise --max-new-tokens"
        return problem_of(answer.text, self.schema)


def windows(questions: Sequence[Question], size: int) -> Iterator[list[Question]]:
    """Runs of about ``size`` questions that leave together what is about the same items."""
    window: list[Question] = []
    for question in questions:
        another = bool(window) and window[-1].item_id != question.item_id
        if (another and len(window) >= size) or len(window) >= max(size, MOST_OF_ONE):
            yield window
            window = []
        window.append(question)
    if window:
        yield window
