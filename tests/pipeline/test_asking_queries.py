"""What is kept of prompts while a selector chooses tokens for each."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from tokcli.errors import UsageError
from tokcli.methods import Query
from tokcli.models import Choice
from tokcli.pipeline import asking
from tokcli.pipeline.asking import MOST_OF_ONE, Asker
from tokcli.pipeline.prompts import Prompt, Question
from tokcli.recipe import InferRecipe


class Reading:
    """Reads nothing, and chooses nothing."""

    selection = "some"

    def read(self, item_id: str) -> Any:
        return SimpleNamespace(id=item_id)

    def focus(self, item: Any, query: Query) -> Any:
        assert query.embeddings.shape == (1, 2)
        return item


class Model:
    """Gives no answers."""

    model = SimpleNamespace(device=torch.device("cpu"))

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def text_embeddings(self, text: str) -> torch.Tensor:
        self.embedded.append(text)
        return torch.zeros(1, 2)

    def answer(self, requests: Any, **how: Any) -> Any:
        yield dict.fromkeys(range(len(requests)), UsageError("no answer"))


def test_what_prompts_mean_is_not_held_of_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    def made(embeddings: torch.Tensor) -> Query:
        query = Query(embeddings)
        alive.add(query)
        return query

    monkeypatch.setattr(asking, "Query", made)
    model, recipe = Model(), InferRecipe(cache="c", prompt=["?"], keep=0.1, select="text_cosine")
    subjects = [SimpleNamespace(id=str(number), items=(str(number),)) for number in range(4 * MOST_OF_ONE)]
    own = [Question(subject.id, Prompt(f"What of {subject.id}?")) for subject in subjects]
    same = [Question(subject.id, Prompt("What is it?")) for subject in subjects]
    asker = Asker(cast(Any, model), cast(Any, Reading()), cast(Any, subjects), recipe, Choice(), None)
    for questions in (own, same):
        assert sum(len(replies) for replies in asker.replies(questions)) == len(subjects)
    gc.collect()
    assert len(alive) <= MOST_OF_ONE
    assert model.embedded.count("What is it?") == 1
