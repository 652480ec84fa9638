"""How answers are chosen: as transformers draws, alike in any batch and behind a shared item, or JSON of a schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from asked import PROMPTS, STEPS, make_item, request_of, speaker_of, without_time
from tiny_checkpoints import Halves

from tokcli.errors import UsageError
from tokcli.models import Choice, parse_schema, problem_of
from tokcli.models.choosing import draw
from tokcli.types import EncodedItem

DRAWN = Choice(temperature=1.3, top_p=0.9, top_k=40, seed=5)
SCHEMA = {
    "type": "object",
    "properties": {"color": {"enum": ["red", "blue"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["color", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=["qwen2_5_vl", "llava"])
def speaker(request: pytest.FixtureRequest) -> Halves:
    return speaker_of(request.param)


@pytest.fixture(scope="module")
def item(speaker: Halves) -> EncodedItem:
    return make_item(speaker, "video, pruned")


@pytest.fixture
def endless(speaker: Halves, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speaker.language.model.generation_config, "eos_token_id", None)


@pytest.mark.usefixtures("endless")
def test_what_is_drawn_depends_on_nothing_beside_the_request(speaker: Halves, item: EncodedItem) -> None:
    language = speaker.language
    requests = [request_of(item, prompt) for prompt in PROMPTS]
    together = language.generate(requests, max_new_tokens=STEPS, choice=DRAWN)
    alone = [language.generate([request], max_new_tokens=STEPS, choice=DRAWN)[0] for request in requests]
    assert without_time(alone) == without_time(together)
    assert without_time(language.ask(item, PROMPTS, max_new_tokens=STEPS, choice=DRAWN)) == without_time(together)
    other = language.ask(item, PROMPTS, max_new_tokens=STEPS, choice=Choice(temperature=1.3, seed=6))
    assert other[0].token_ids != together[0].token_ids
    greedy = language.ask(item, PROMPTS, max_new_tokens=STEPS)
    coldest = language.ask(item, PROMPTS, max_new_tokens=STEPS, choice=Choice(temperature=1e-6, seed=1))
    assert without_time(coldest) == without_time(greedy) != without_time(together)


@pytest.mark.usefixtures("endless")
def test_first_tokens_come_as_often_as_the_filtered_distribution_says(speaker: Halves, item: EncodedItem) -> None:
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    language = speaker.language
    scores = language.distributions(item, ["hi"], [[9]])[0]
    for warp in (TemperatureLogitsWarper(0.7), TopKLogitsWarper(6), TopPLogitsWarper(0.8)):
        scores = warp(None, scores)
    expected = torch.softmax(scores[0].double(), dim=-1)
    drawn = torch.zeros_like(expected)
    for seed in range(150):
        choice = Choice(temperature=0.7, top_k=6, top_p=0.8, seed=seed)
        drawn[language.ask(item, ["hi"], max_new_tokens=1, choice=choice)[0].token_ids[0]] += 1 / 150
    assert int((expected > 0).sum()) > 2
    assert float(drawn[expected == 0].sum()) == 0
    assert float((drawn - expected).abs().max()) < 0.13  # three standard deviations of the likeliest


def test_a_number_falls_among_the_likeliest_first() -> None:
    rows = torch.tensor([[0.2, 0.5, 0.0, 0.3]] * 5)
    numbers = torch.tensor([0.0, 0.49, 0.51, 0.81, 1.0], dtype=torch.float64)
    assert draw(rows, numbers) == [1, 1, 3, 0, 0]


class OnMps(torch.Tensor):
    """As tensors on Apple's GPUs, which have no float64, until they are on the CPU."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.double:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        given = args[0].as_subclass(torch.Tensor) if func is torch.Tensor.cpu else None
        return super().__torch_function__(func, types, args, kwargs or {}) if given is None else given


def test_numbers_are_drawn_on_the_cpu_for_there_is_no_float64_elsewhere() -> None:
    rows = torch.tensor([[0.2, 0.5, 0.0, 0.3]]).as_subclass(OnMps)
    assert draw(rows, torch.tensor([0.6], dtype=torch.float64)) == [3]


def test_answers_are_json_of_the_schema(speaker: Halves, item: EncodedItem) -> None:
    """Of random weights too, which otherwise write no JSON at all."""
    language = speaker.language
    requests = [request_of(item, prompt) for prompt in PROMPTS]
    for choice in (Choice(schema=json.dumps(SCHEMA)), Choice(temperature=2.0, seed=3, schema=json.dumps(SCHEMA))):
        answers = language.generate(requests, max_new_tokens=60, choice=choice)
        assert [problem_of(answer.text, SCHEMA) for answer in answers] == [None] * len(answers)
        assert {answer.finish_reason for answer in answers} == {"stop"}
        assert without_time(language.ask(item, PROMPTS, max_new_tokens=60, choice=choice)) == without_time(answers)
    assert problem_of(language.ask(item, ["hi"], max_new_tokens=8)[0].text, SCHEMA)
    cut = language.ask(item, ["hi"], max_new_tokens=3, choice=Choice(schema=json.dumps(SCHEMA)))[0]
    assert (cut.finish_reason, problem_of(cut.text, SCHEMA) is None) == ("length", False)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "a JSON Schema is an object"),
        ('{"type": "objekt"}', "no JSON Schema: type: 'objekt'"),
        ('{"not": {"type": "string"}}', "can't be held while an answer is written: .*not"),
        ('{"$ref": "#/nowhere"}', "can't be held"),
    ],
)
def test_no_schema_is_one_line(speaker: Halves, item: EncodedItem, schema: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        speaker.language.ask(item, ["hi"], choice=Choice(schema=schema))
    assert "\n" not in str(caught.value)


def test_problems_are_one_line() -> None:
    assert parse_schema(json.dumps(SCHEMA)) == SCHEMA
    assert problem_of('{"color": "red", "count": 3}', SCHEMA) is None
    assert "not JSON" in str(problem_of('{"color": "red', SCHEMA))
    assert "'green' is not one of" in str(problem_of('{"color": "green", "count": 3}', SCHEMA))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p must be"),
        ({"temperature": 1.0, "top_k": -1}, "top_k must be"),
        ({"top_p": 0.9}, "temperature 0 draws nothing"),
    ],
)
def test_impossible_choices_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Choice(**values)  # type: ignore[arg-type]
