"""Answering: every decode step, ragged batches, limits, and what happens when memory runs out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from stepwise import STEPS, check_each_step, check_ragged_batch, ragged_requests
from tiny_checkpoints import Halves

from tokcli.errors import ModelError, UsageError
from tokcli.models import Request
from tokcli.models.loading import NotLoaded


@pytest.fixture
def requests(halves: Halves) -> list[Request]:
    return ragged_requests(halves.tower)


@pytest.fixture
def endless(halves: Halves, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never stop at an end token."""
    monkeypatch.setattr(halves.language.model.generation_config, "eos_token_id", None)


@pytest.mark.usefixtures("endless")
def test_each_step_with_cache_is_the_step_without(halves: Halves, requests: list[Request]) -> None:
    check_each_step(halves.language, requests[:3])


@pytest.mark.usefixtures("endless")
def test_a_ragged_batch_is_its_rows_alone(halves: Halves, requests: list[Request]) -> None:
    check_ragged_batch(halves.language, requests)


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("budget", [1, 130, 100_000])
def test_answers_come_in_the_order_of_the_requests(
    halves: Halves, requests: list[Request], budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halves.language, "max_batch_tokens", budget)
    answers = halves.language.generate(requests, max_new_tokens=STEPS)
    alone = [halves.language.generate([request], max_new_tokens=STEPS)[0] for request in requests]
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in alone]
    assert [answer.visual_tokens for answer in answers] == [
        sum(len(item.kept) for item in request.items) for request in requests
    ]
    assert {answer.finish_reason for answer in answers} == {"length"}


@pytest.mark.usefixtures("endless")
def test_generating_twice_gives_the_same(halves: Halves, requests: list[Request]) -> None:
    first, second = (halves.language.generate(requests, max_new_tokens=4) for _ in range(2))
    assert [answer.token_ids for answer in first] == [answer.token_ids for answer in second]


def test_stops_at_the_end_token(halves: Halves, requests: list[Request], monkeypatch: pytest.MonkeyPatch) -> None:
    config = halves.language.model.generation_config
    monkeypatch.setattr(config, "eos_token_id", None)
    unstopped = halves.language.generate(requests[:1], max_new_tokens=STEPS)[0].token_ids
    monkeypatch.setattr(config, "eos_token_id", [unstopped[3], 0])
    stopped = halves.language.generate(requests[:2], max_new_tokens=STEPS)[0]
    first = min(unstopped.index(unstopped[3]), unstopped.index(0) if 0 in unstopped else STEPS)
    assert stopped.token_ids == unstopped[: first + 1]
    assert stopped.finish_reason == "stop"


@pytest.mark.usefixtures("endless")
def test_a_batch_that_does_not_fit_is_halved(
    halves: Halves, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = halves.language.generate(requests, max_new_tokens=4)
    sizes: list[int] = []
    generate = halves.language.model.generate

    def small_memory(**inputs: Any) -> torch.Tensor:
        sizes.append(len(inputs["input_ids"]))
        if len(inputs["input_ids"]) > 1:
            raise torch.OutOfMemoryError("no memory")
        return generate(**inputs)

    monkeypatch.setattr(halves.language.model, "generate", small_memory)
    halved = halves.language.generate(requests, max_new_tokens=4)
    assert [answer.token_ids for answer in halved] == [answer.token_ids for answer in whole]
    assert sizes[:3] == [5, 2, 1]


def test_a_prompt_that_alone_does_not_fit_is_an_error(
    halves: Halves, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(**inputs: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(halves.language.model, "generate", no_memory)
    with pytest.raises(ModelError, match=r"a prompt of \d+ tokens doesn't fit into the memory of cpu; keep fewer"):
        halves.language.generate(requests[:1], max_new_tokens=4)


def test_the_language_half_holds_no_tower(halves: Halves) -> None:
    model = halves.language.model
    assert isinstance(model.model.visual, NotLoaded)
    assert not [name for name, _ in model.named_parameters() if "visual" in name]
    with pytest.raises(RuntimeError, match="visual was not loaded"):
        model.model.visual(torch.zeros(4, 1176), grid_thw=torch.tensor([[1, 2, 2]]))


def test_limits_and_widths_are_checked(halves: Halves, requests: list[Request]) -> None:
    with pytest.raises(UsageError, match="max_new_tokens must be at least 1, got 0"):
        halves.language.generate(requests, max_new_tokens=0)
    item = requests[0].items[0]
    wide = replace(item, kept=replace(item.kept, tokens=torch.zeros(len(item.kept), 96)))
    with pytest.raises(ModelError, match=r"item 'video' has tokens of width 96, .* takes 64"):
        halves.language.generate([Request([wide], "hi")], max_new_tokens=1)


def test_tokens_may_be_stored_in_another_dtype(halves: Halves, requests: list[Request]) -> None:
    item = requests[0].items[0]
    half = replace(item, kept=replace(item.kept, tokens=item.kept.tokens.to(torch.float16)))
    inputs = halves.language.prepare([Request([half], "hi")])
    assert inputs["mm_encoder_outputs"]["video"].pooler_output[0].dtype == torch.float32
