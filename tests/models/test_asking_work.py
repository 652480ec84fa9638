"""Asking many prompts at once: what is computed how often, what would be noticed, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import pytest
import torch
from asked import FAMILIES, PROMPTS, STEPS, furthest, make_item, one_by_one, speaker_of, without_time
from tiny_checkpoints import Halves

from tokcli import models
from tokcli.errors import ModelError, UsageError
from tokcli.models import asking
from tokcli.models.branching import Row, Tokens, Trunk
from tokcli.types import EncodedItem


@pytest.fixture(scope="module", params=FAMILIES)
def speaker(request: pytest.FixtureRequest) -> Halves:
    return speaker_of(request.param)


@pytest.fixture(scope="module")
def item(speaker: Halves) -> EncodedItem:
    return make_item(speaker, "video, pruned")


@pytest.fixture
def qwen() -> Halves:
    return speaker_of("qwen2_5_vl")


@pytest.fixture
def calls(speaker: Halves, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each call of the model took."""
    taken: list[int] = []
    forward = type(speaker.language.model).forward

    @wraps(forward)
    def counted(self: Any, **inputs: Any) -> Any:
        taken.append(inputs["input_ids"].numel())
        return forward(self, **inputs)

    monkeypatch.setattr(type(speaker.language.model), "forward", counted)
    return taken


def changed(change: Callable[[Tokens], Tokens]) -> Callable[..., torch.Tensor]:
    """``Row.extend`` that is given other tokens."""
    extend = Row.extend
    return lambda self, tokens, keep: extend(self, change(tokens), keep)


def test_an_options_first_token_costs_nothing(speaker: Halves, item: EncodedItem, calls: list[int]) -> None:
    """One call for what the prompts share, one for the rest; options of one token add no token."""
    language = speaker.language
    language.distributions(item, PROMPTS, [[]] * len(PROMPTS))
    trunk, prompts = calls
    assert trunk > len(item.kept)
    assert trunk + prompts < len(item.kept) + sum(len(language.prompt(models.Request([], p)).ids) for p in PROMPTS)
    calls.clear()
    letters = [list("abcdefgh")] * len(PROMPTS)
    assert {score.tokens for row in language.log_likelihoods(item, PROMPTS, letters) for score in row} == {1}
    assert calls == [trunk, prompts]
    calls.clear()
    language.distributions(item, PROMPTS, [[40, 41, 42]] * len(PROMPTS))
    assert calls == [trunk, prompts + 2 * len(PROMPTS)]


def test_prompts_that_have_ended_cost_nothing(
    speaker: Halves, item: EncodedItem, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    language = speaker.language
    monkeypatch.setattr(language.model.generation_config, "eos_token_id", None)
    long = language.ask(item, PROMPTS, max_new_tokens=STEPS)
    assert calls[2:] == [len(PROMPTS)] * (STEPS - 1)
    ends = [long[0].token_ids[2], long[1].token_ids[4]]
    monkeypatch.setattr(language.model.generation_config, "eos_token_id", ends)
    calls.clear()
    answers = language.ask(item, PROMPTS, max_new_tokens=STEPS)
    lengths = [len(answer.token_ids) for answer in answers]
    assert calls[2:] == [sum(length > step for length in lengths) for step in range(1, max(lengths))]
    assert without_time(answers) == without_time(one_by_one(language, item))
    assert answers[0].finish_reason == "stop"


def test_rows_hold_a_limited_number_of_tokens(
    speaker: Halves, item: EncodedItem, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(asking.ROW_TOKENS, "cpu", 90)
    speaker.language.ask(item, PROMPTS * 3, max_new_tokens=1)
    trunk, *rows = calls
    assert trunk > len(item.kept)
    assert len(rows) > 2
    assert max(rows) <= 90
    assert furthest(speaker.language, item) <= 1e-5


def test_trunk_and_row_stay_within_the_batch(
    speaker: Halves, item: EncodedItem, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = len(item.kept) + 100
    monkeypatch.setattr(speaker.language, "max_batch_tokens", budget)
    speaker.language.ask(item, PROMPTS * 3, max_new_tokens=1)
    trunk, *rows = calls
    assert len(rows) > 2
    assert trunk + max(rows) <= budget


def test_the_trunk_of_another_item_would_show(
    speaker: Halves, item: EncodedItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(item, kept=replace(item.kept, tokens=item.kept.tokens.flip(0)))
    assert furthest(speaker.language, other) <= 1e-5
    trunks: list[Trunk] = []

    def first_again(*args: Any, **inputs: Any) -> Trunk:
        trunks.append(trunks[0] if trunks else Trunk(*args, **inputs))
        return trunks[0]

    monkeypatch.setattr(asking, "Trunk", first_again)
    assert furthest(speaker.language, item) <= 1e-5
    assert furthest(speaker.language, other) > 1e-3


def test_positions_one_further_would_show(speaker: Halves, item: EncodedItem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Row, "extend", changed(lambda tokens: replace(tokens, positions=tokens.positions + 1)))
    assert furthest(speaker.language, item) > 1e-3


def test_prompts_that_see_each_other_would_show(
    speaker: Halves, item: EncodedItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Row, "extend", changed(lambda tokens: replace(tokens, group=torch.zeros_like(tokens.group))))
    assert furthest(speaker.language, item) > 1e-3


def test_options_that_see_each_other_would_show(
    speaker: Halves, item: EncodedItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [["the cat", "the other mat"]]
    right = speaker.language.log_likelihoods(item, PROMPTS[:1], options)[0]
    monkeypatch.setattr(
        Row, "extend", changed(lambda tokens: replace(tokens, branch=torch.full_like(tokens.branch, -1)))
    )
    wrong = speaker.language.log_likelihoods(item, PROMPTS[:1], options)[0]
    assert wrong[0].total == pytest.approx(right[0].total, abs=2e-5, rel=1e-6)
    assert abs(wrong[1].total - right[1].total) > 1e-3


def test_eager_attention_gives_the_same(speaker: Halves, item: EncodedItem) -> None:
    name = "nano" if speaker.family == "nano" else str(speaker.folder)
    eager = models.load_language_model(name, device="cpu", dtype="float32", attn="eager")
    assert furthest(eager, item) <= 1e-5
    for ours, other in zip(
        eager.distributions(item, PROMPTS, [[40, 41]] * len(PROMPTS)),
        speaker.language.distributions(item, PROMPTS, [[40, 41]] * len(PROMPTS)),
    ):
        # Scores reach -30, where float32 has steps of 2e-6: two ways to sum a few hundred products differ by some.
        assert float((ours - other).abs().max()) <= 3e-5


@pytest.mark.parametrize("setting", ["repetition_penalty", "no_repeat_ngram_size", "suppress_tokens"])
def test_settings_of_the_checkpoint_are_followed(
    speaker: Halves, item: EncodedItem, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = speaker.language.model.generation_config
    monkeypatch.setattr(config, "eos_token_id", None)
    plain = without_time(speaker.language.ask(item, PROMPTS, max_new_tokens=STEPS))
    first = [plain[0].token_ids[0]]
    value = {"repetition_penalty": 1000.0, "no_repeat_ngram_size": 1, "suppress_tokens": first}[setting]
    monkeypatch.setattr(config, setting, value)
    answers = without_time(speaker.language.ask(item, PROMPTS, max_new_tokens=STEPS))
    assert answers == without_time(one_by_one(speaker.language, item))
    assert answers != plain


def test_a_batch_that_does_not_fit_is_halved(
    speaker: Halves, item: EncodedItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = without_time(speaker.language.ask(item, PROMPTS, max_new_tokens=4))
    sizes: list[int] = []
    grow, extend = Row.grow, Row.extend

    def small(self: Row, stems: Any) -> Any:
        sizes.append(len(stems))
        return grow(self, stems)

    def small_memory(self: Row, tokens: Tokens, keep: torch.Tensor) -> torch.Tensor:
        logits = extend(self, tokens, keep)
        if sizes[-1] > 2:  # after the cache has grown: nothing of it may be left
            raise torch.OutOfMemoryError("no memory")
        return logits

    monkeypatch.setattr(Row, "grow", small)
    monkeypatch.setattr(Row, "extend", small_memory)
    assert without_time(speaker.language.ask(item, PROMPTS, max_new_tokens=4)) == whole
    assert sizes == [6, 3, 1, 2, 3, 1, 2]


@pytest.mark.parametrize("part", ["grow", "trunk"])
def test_a_prompt_that_alone_does_not_fit_is_an_error(qwen: Halves, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*args: Any, **inputs: Any) -> None:
        raise torch.OutOfMemoryError("no memory")

    if part == "grow":
        monkeypatch.setattr(Row, "grow", no_memory)
    else:
        monkeypatch.setattr(asking, "Trunk", no_memory)
    with pytest.raises(ModelError, match=r"a prompt of \d+ tokens doesn't fit into the memory of cpu; keep fewer"):
        qwen.language.ask(make_item(qwen, "image"), PROMPTS)


def test_no_prompts_no_answers(qwen: Halves) -> None:
    assert qwen.language.ask(None, []) == []
    assert qwen.language.log_likelihoods(None, [], []) == []
    assert qwen.language.distributions(None, [], []) == []


def test_arguments_are_checked(qwen: Halves) -> None:
    ask, item = qwen.language.ask, make_item(qwen, "image")
    with pytest.raises(UsageError, match="max_new_tokens must be at least 1, got 0"):
        ask(item, PROMPTS, max_new_tokens=0)
    with pytest.raises(UsageError, match=r"the prompt holds <\|video_pad\|>"):
        ask(item, ["hi", "what is <|video_pad|>"])
    with pytest.raises(ModelError, match="unknown position scheme 'mine'; known: original, hf, compact"):
        ask(item, PROMPTS, scheme="mine")
    with pytest.raises(UsageError, match="2 prompts need as many lists of options, got 1"):
        qwen.language.log_likelihoods(item, ["a", "b"], [["c"]])
    with pytest.raises(UsageError, match="the option '' has no tokens"):
        qwen.language.log_likelihoods(item, ["a"], [["c", ""]])
    with pytest.raises(UsageError, match="1 prompts need as many lists of continuations, got 2"):
        qwen.language.distributions(item, ["a"], [[1], [2]])
    wide = replace(item, kept=replace(item.kept, tokens=torch.zeros(len(item.kept), 96)))
    with pytest.raises(ModelError, match=r"has tokens of width 96, .* takes 64"):
        ask(wide, PROMPTS)


def test_models_that_need_masks_of_their_own_are_refused(qwen: Halves, monkeypatch: pytest.MonkeyPatch) -> None:
    text = qwen.language.model.config.get_text_config()
    monkeypatch.setattr(text, "layer_types", ["full_attention", "sliding_attention"])
    with pytest.raises(
        ModelError, match="full attention in all layers, this qwen2_5_vl has sliding_attention; use generate"
    ):
        qwen.language.ask(None, PROMPTS)
    monkeypatch.undo()
    monkeypatch.setattr(text, "_attn_implementation_internal", "flash_attention_2")
    with pytest.raises(ModelError, match="need the attention sdpa or eager, not flash_attention_2; load"):
        qwen.language.ask(None, PROMPTS)


def test_a_template_that_puts_the_prompt_first_is_refused(qwen: Halves, monkeypatch: pytest.MonkeyPatch) -> None:
    template = (
        "{% for part in messages[0]['content'] | reverse %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<|image_pad|>{% endif %}{% endfor %}"
    )
    monkeypatch.setattr(qwen.language, "template", template)
    with pytest.raises(ModelError, match=r"puts the prompt before the item, .*; use generate"):
        qwen.language.ask(make_item(qwen, "image"), PROMPTS)
    assert without_time(qwen.language.ask(None, PROMPTS, max_new_tokens=3)) == [
        replace(answer, seconds=0.0)
        for prompt in PROMPTS
        for answer in qwen.language.generate([models.Request([], prompt)], max_new_tokens=3)
    ]
