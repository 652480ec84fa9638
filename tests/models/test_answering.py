"""Many requests of all kinds: shared where they are about the same items, each with its own answer or error."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from asked import PROMPTS, STEPS, make_item, speaker_of, without_time
from tiny_checkpoints import Halves

from tokcli.errors import ModelError, UsageError
from tokcli.models import Answer, LanguageModel, Request, answering
from tokcli.models.memory import batch_tokens, token_bytes
from tokcli.types import EncodedItem


@pytest.fixture(scope="module", params=["qwen2_5_vl", "llava"])
def speaker(request: pytest.FixtureRequest) -> Halves:
    return speaker_of(request.param)


@pytest.fixture(scope="module")
def items(speaker: Halves) -> list[EncodedItem]:
    return [make_item(speaker, "video, pruned"), make_item(speaker, "image", seed=4)]


def answers(language: LanguageModel, requests: list[Request], **options: Any) -> dict[int, Answer | UsageError]:
    results: dict[int, Answer | UsageError] = {}
    for new in language.answer(requests, max_new_tokens=STEPS, **options):
        assert not results.keys() & new.keys()
        results |= new
    return dict(sorted(results.items()))


@pytest.mark.parametrize("least", [0, 10**6])
def test_shared_or_not_answers_are_those_of_each_alone(
    speaker: Halves, items: list[EncodedItem], least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    language = speaker.language
    calls: list[int] = []
    ask = answering.asking.ask

    def counted(language: LanguageModel, requests: list[Request], **options: Any) -> list[Answer]:
        calls.append(len(requests))
        return ask(language, requests, **options)

    monkeypatch.setattr(answering, "SHARED_TOKENS", least)
    monkeypatch.setattr(answering.asking, "ask", counted)
    groups = [items, items[:1], items[1:]]
    history = (("what is it ?", "a cat"),)
    requests = [Request(group, prompt) for prompt in PROMPTS[:3] for group in groups]
    requests += [Request(items[:1], prompt, history=history) for prompt in PROMPTS[:2]]
    found = answers(language, requests)
    alone = [language.generate([request], max_new_tokens=STEPS)[0] for request in requests]
    assert without_time(list(found.values())) == without_time(alone)  # type: ignore[arg-type]
    # Requests are grouped by the very objects; lists that hold the same are the same.
    assert sorted(calls) == ([2, 3, 3, 3] if least == 0 else [])


def test_a_conversation_is_what_the_template_makes_of_its_messages(speaker: Halves, items: list[EncodedItem]) -> None:
    language = speaker.language
    request = Request(items[:1], "and now ?", history=(("what is it ?", "a cat"),))
    ids = language.prompt(request).ids
    kind = language.family.part_types[items[0].kind]
    text = language.tokenizer.apply_chat_template(
        [
            {"role": "user", "content": [{"type": kind}, {"type": "text", "text": "what is it ?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]},
            {"role": "user", "content": [{"type": "text", "text": "and now ?"}]},
        ],
        chat_template=language.template,
        tokenize=False,
        add_generation_prompt=True,
    )
    single = language.tokenizer(text).input_ids
    visual = language.family.placeholder(language.model.config, items[0].kind)
    at = single.index(visual)
    assert ids.tolist() == single[:at] + [visual] * len(items[0].kept) + single[at + 1 :]


def test_one_that_fails_costs_no_other_its_answer(
    speaker: Halves, items: list[EncodedItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "SHARED_TOKENS", 0)
    language = speaker.language
    token = language.tokenizer.convert_ids_to_tokens(language.family.placeholder(language.model.config, "image"))
    wide = replace(items[0], kept=replace(items[0].kept, tokens=torch.zeros(len(items[0].kept), 96)))
    requests = [
        Request(items[:1], "hi"),
        Request(items[:1], f"what is {token} ?"),
        Request([wide], "hi"),
        Request(items[:1], "what happens ?"),
    ]
    found = answers(language, requests)
    assert [type(result) for result in found.values()] == [Answer, UsageError, ModelError, Answer]
    for number in (0, 3):
        alone = language.generate([requests[number]], max_new_tokens=STEPS)
        assert without_time([found[number]]) == without_time(alone)  # type: ignore[list-item]


def test_a_prompt_beyond_the_context_says_what_to_keep(
    speaker: Halves, items: list[EncodedItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    language, item = speaker.language, items[1]
    length, visual = len(language.prompt(Request([item], "hi")).ids), len(item.kept)
    text = language.model.config.get_text_config()
    limit = length + STEPS - 1
    monkeypatch.setattr(text, "max_position_embeddings", limit)
    result = answers(language, [Request([item], "hi"), Request([], "hi")])
    assert isinstance(result[1], Answer)
    share = int(1000 * (visual - 1) / item.source_tokens) / 1000
    assert str(result[0]) == (
        f"the prompt has {length} tokens, {visual} of them visual, and with {STEPS} new ones that is beyond the "
        f"{limit} of {language.name}; read fewer of them: --keep {share:g}"
    )
    for asked in (
        language.generate([Request([item], "hi")], max_new_tokens=STEPS - 1),
        language.ask(item, ["hi"], max_new_tokens=STEPS - 1),
    ):
        assert len(asked[0].token_ids) <= STEPS - 1
    with pytest.raises(ModelError, match="beyond the"):
        language.ask(item, ["hi"], max_new_tokens=STEPS)
    monkeypatch.setattr(text, "max_position_embeddings", 5)
    assert "shorten the prompt" in str(answers(language, [Request([item], "hi")])[0])


def test_what_did_not_fit_once_is_not_tried_again(
    speaker: Halves, items: list[EncodedItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    language, generate = speaker.language, speaker.language.model.generate
    sizes: list[int] = []

    def small_memory(**inputs: Any) -> torch.Tensor:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")
        return generate(**inputs)

    monkeypatch.setattr(language, "max_batch_tokens", 10**6)
    monkeypatch.setattr(language.model, "generate", small_memory)
    requests = [Request([item], f"{prompt} {number}") for number in range(2) for item in items for prompt in PROMPTS]
    found = answers(language, requests)
    assert all(isinstance(result, Answer) for result in found.values())
    del sizes[:]
    answers(language, requests)
    assert max(sizes) < len(requests)


def test_batches_are_sized_by_free_memory(speaker: Halves, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokcli.models import memory

    model = speaker.language.model
    config = model.config.get_text_config()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    assert token_bytes(model) >= 4 * 2 * config.num_hidden_layers * config.num_key_value_heads * head
    monkeypatch.setattr(memory, "_free_bytes", lambda device: 1000 * token_bytes(model))
    assert batch_tokens(model) == 800
    monkeypatch.setattr(memory, "_free_bytes", lambda device: 0)
    assert batch_tokens(model) == 1
    monkeypatch.setattr(memory, "_free_bytes", lambda device: 10**15)
    assert batch_tokens(model) == 8192
