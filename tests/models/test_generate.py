"""Answering: every decode step, ragged batches, limits, and what happens when memory runs out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from native_reference import keep_rows
from tiny_checkpoints import Halves, encode_item, make_info

from tokcli.errors import ModelError, UsageError
from tokcli.models import Request
from tokcli.models.loading import NotLoaded
from tokcli.types import EncodedItem

STEPS = 12


def some_rows(item: EncodedItem, share: float, seed: int) -> EncodedItem:
    mask = np.random.default_rng(seed).random(len(item.kept)) < share
    return keep_rows(item, np.flatnonzero(mask))


@pytest.fixture
def requests(halves: Halves) -> list[Request]:
    """Ragged: videos and stills, other shares kept, other questions, several items, none at all."""
    video = encode_item(halves.tower, make_info("video"), seed=1, name="video")
    image = encode_item(halves.tower, make_info("image", height=60, width=60), seed=2, name="image")
    return [
        Request([some_rows(video, 0.3, 0)], "what happens ?"),
        Request([image], "a cat sits on the mat and looks at the other cat", system="be short"),
        Request([image, some_rows(video, 0.6, 1), image], "what happens in this video ?"),
        Request([keep_rows(video, [])], "nothing was kept"),
        Request([], "no item at all"),
    ]


@pytest.fixture
def endless(halves: Halves, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never stop at an end token."""
    monkeypatch.setattr(halves.language.model.generation_config, "eos_token_id", None)


@torch.no_grad()
def uncached(halves: Halves, request: Request, new: list[int]) -> torch.Tensor:
    """Logits of the last token, computed anew for the whole sequence: prompt, then what was generated."""
    inputs = halves.language.prepare([request])
    more = torch.tensor([new], dtype=torch.long)
    after = inputs["position_ids"].amax(dim=(0, 2)) + 1
    inputs["input_ids"] = torch.cat([inputs["input_ids"], more], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    steps = (after + torch.arange(len(new))).expand(3, 1, -1)
    inputs["position_ids"] = torch.cat([inputs["position_ids"], steps], dim=2)
    return halves.language.model(**inputs, use_cache=False).logits[0, -1]


def cached_steps(halves: Halves, requests: list[Request]) -> Any:
    return halves.language.model.generate(
        **halves.language.prepare(requests),
        max_new_tokens=STEPS,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )


@pytest.mark.usefixtures("endless")
def test_each_step_with_cache_is_the_step_without(halves: Halves, requests: list[Request]) -> None:
    for request in requests[:3]:
        output = cached_steps(halves, [request])
        new = output.sequences[0, -STEPS:].tolist()
        for step in range(STEPS):
            reference = uncached(halves, request, new[:step])
            assert float((output.logits[step][0] - reference).abs().max()) <= 5e-6
            assert int(reference.argmax()) == new[step]


@pytest.mark.usefixtures("endless")
def test_a_ragged_batch_is_its_rows_alone(halves: Halves, requests: list[Request]) -> None:
    together = cached_steps(halves, requests)
    for row, request in enumerate(requests):
        alone = cached_steps(halves, [request])
        assert together.sequences[row, -STEPS:].tolist() == alone.sequences[0, -STEPS:].tolist()
        for step in range(STEPS):
            assert float((together.logits[step][row] - alone.logits[step][0]).abs().max()) <= 5e-6


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
