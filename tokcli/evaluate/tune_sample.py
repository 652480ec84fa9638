"""The sample that `tokcli tune` looks at, and what it asks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokcli.errors import UsageError
from tokcli.evaluate.matching import by_item
from tokcli.evaluate.observer import EvalObserver
from tokcli.evaluate.questions import Question, general_questions, read_questions
from tokcli.recipe import TuneRecipe

DEFAULT_PROMPTS = ("Describe this in one sentence.", "What happens here, and in what order?")
"""Asked where neither questions nor prompts are given."""


@dataclass(frozen=True)
class Asked:
    """Questions, and whether their right answers are known."""

    questions: list[Question]
    labelled: bool


def read_asked(recipe: TuneRecipe) -> Asked:
    """The questions of the recipe. Raises ``UsageError`` where only some of them have a right answer."""
    if recipe.qa is None:
        return Asked(general_questions(recipe.prompt or DEFAULT_PROMPTS), False)
    path = Path(recipe.qa)
    questions = read_questions(path, labelled=False)
    known = [bool(question.answers) for question in questions]
    if any(known) and recipe.prompt:
        raise UsageError("prompts have no right answers and the questions have; give either qa or prompt")
    if any(known) and not all(known):
        raise UsageError(
            f"{path}: {known.count(False)} of {len(known)} questions have no 'answer'; give all of them one, or none"
        )
    return Asked([*questions, *general_questions(recipe.prompt, len(questions))], all(known))


def draw_sample(
    recipe: TuneRecipe, asked: Asked, ids: Sequence[str], observer: EvalObserver
) -> dict[str, list[Question]]:
    """Random items in random order, with random questions about each; the same for the same seed and inputs.

    A larger sample begins with the smaller one. Raises ``UsageError`` for fewer than two items.
    """
    found, missing = by_item(asked.questions, ids)
    if missing:
        observer.warning(f"{len(missing)} questions are about other items and are left out: {missing[0]!r} and so on")
    if len(found) < 2:
        raise UsageError(f"{len(found)} item with questions; tune needs at least 2, and more to be sure of anything")
    # By its name, not its place, so that inputs added later leave the draws of the others as they are.
    order = sorted(found, key=lambda item_id: random.Random(f"{recipe.seed}:{item_id}").random())
    sample = {}
    for item_id in order[: recipe.sample]:
        drawn = list(found[item_id])
        random.Random(f"{recipe.seed}:{item_id}:questions").shuffle(drawn)
        sample[item_id] = drawn[: recipe.questions]
    return sample
