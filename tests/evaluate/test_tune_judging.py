"""What counts as kept, against plain answers of the bundled model, question by question."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tokcli.cache import open_cache
from tokcli.evaluate.judging import AgainstLabels, AskOptions
from tokcli.evaluate.matching import by_item
from tokcli.evaluate.questions import Question, general_questions, read_questions
from tokcli.evaluate.scoring import normalised
from tokcli.evaluate.tune_judging import KeepsAnswers
from tokcli.methods import resolve
from tokcli.models import LanguageModel, load_language_model
from tokcli.pipeline.restore import visual_tokens
from tokcli.types import EncodedItem


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_language_model("nano")


def compressed(item: EncodedItem, keep: float) -> EncodedItem:
    return replace(item, kept=resolve("uniform", keep=keep).compress(visual_tokens(item), item.id))


def with_options(question: Question, number: int) -> Question:
    """The same as a multiple-choice question."""
    wrong = ["purple", "nine", "to the moon"]
    options = [question.answers[0], *wrong]
    random.Random(number).shuffle(options)
    correct = options.index(question.answers[0])
    return Question(1000 + number, question.text, (), question.answers, tuple(options), correct)


@pytest.mark.parametrize("keep", [0.2, 0.1])
def test_kept_is_right_before_and_after(model: LanguageModel, clips: Path, clip_cache: Path, keep: float) -> None:
    cache = open_cache(clip_cache)
    asked, _ = by_item(read_questions(clips / "qa.jsonl", labelled=True), cache.ids())
    keeps = KeepsAnswers(lambda: model, AskOptions(), labelled=True)
    plain = AgainstLabels(lambda: model, AskOptions())
    outcomes = []
    for item_id, own in list(asked.items())[:3]:
        item = cache[item_id]
        questions = [*own, *(with_options(question, number) for number, question in enumerate(own))]
        small = compressed(item, keep)
        before = {judged.number: judged for judged in plain.judge(item, questions, partial(cache.__getitem__, item_id))}
        after = {judged.number: judged for judged in plain.judge(small, questions, partial(cache.__getitem__, item_id))}
        got = {judged.number: judged for judged in keeps.judge(small, questions, partial(cache.__getitem__, item_id))}
        assert got.keys() == {number for number, judged in before.items() if judged.score}
        for number, judged in got.items():
            assert judged.score == after[number].score
            assert normalised(judged.text) == normalised(after[number].text)
            outcomes.append(judged.score)
    # Both happen, else the test would show little.
    assert 0 < sum(outcomes) < len(outcomes)


def test_agreement_is_the_same_answer_right_or_wrong(model: LanguageModel, clips: Path, clip_cache: Path) -> None:
    cache = open_cache(clip_cache)
    prompts = ["Tell me the color of the square.", "Which way does the circle move?", "How many objects are there?"]
    questions = general_questions(prompts)
    keeps = KeepsAnswers(lambda: model, AskOptions(), labelled=False)
    scores = []
    for item_id in cache.ids():
        item = cache[item_id]
        small = compressed(item, 0.1)
        judged = keeps.judge(small, questions, partial(cache.__getitem__, item_id))
        before, after = (model.ask(each, prompts, max_new_tokens=16) for each in (item, small))
        expected = [float(normalised(one.text) == normalised(other.text)) for one, other in zip(before, after)]
        assert sorted((each.number, each.score) for each in judged) == list(enumerate(expected))
        scores += expected
    assert 0 < sum(scores) < len(scores)
