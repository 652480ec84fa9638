"""Many prompts about one item at once: what each gets is what it gets alone, and what one plain forward says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from asked import (
    FAMILIES,
    PROMPTS,
    STEPS,
    furthest,
    make_item,
    one_by_one,
    one_forward,
    request_of,
    speaker_of,
    without_time,
)
from native_reference import QUESTION, native_inputs, original_positions
from tiny_checkpoints import Halves, encode_item, make_info, make_pixels

from tokcli.types import EncodedItem

OPTIONS = [["a", "cat"], ["red", "the mat and the cat"], ["0"], ["yes", "no", "yes and no", "b"], [], ["on the"]]
SCHEMES = ["original", "hf", "compact"]


@pytest.fixture(scope="module", params=FAMILIES)
def speaker(request: pytest.FixtureRequest) -> Halves:
    return speaker_of(request.param)


@pytest.fixture(scope="module", params=["video", "video, pruned", "image", "image, pruned", "nothing kept"])
def item(request: pytest.FixtureRequest, speaker: Halves) -> EncodedItem:
    return make_item(speaker, request.param)


@pytest.fixture(scope="module")
def some(speaker: Halves) -> EncodedItem:
    return make_item(speaker, "video, pruned")


@pytest.fixture
def endless(speaker: Halves, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never stop at an end token: random models reach none by themselves, and nano's answers are short."""
    monkeypatch.setattr(speaker.language.model.generation_config, "eos_token_id", None)


@pytest.mark.usefixtures("endless")
def test_answers_are_those_of_generate(speaker: Halves, item: EncodedItem) -> None:
    answers = speaker.language.ask(item, PROMPTS, max_new_tokens=STEPS)
    assert without_time(answers) == without_time(one_by_one(speaker.language, item))
    assert {len(answer.token_ids) for answer in answers} == {STEPS}


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("scheme", ["hf", "compact"])
def test_answers_follow_the_scheme(speaker: Halves, some: EncodedItem, scheme: str) -> None:
    answers = speaker.language.ask(some, PROMPTS, max_new_tokens=STEPS, scheme=scheme)
    assert without_time(answers) == without_time(one_by_one(speaker.language, some, scheme))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_distributions_are_those_of_one_forward(speaker: Halves, item: EncodedItem, scheme: str) -> None:
    assert furthest(speaker.language, item, scheme) <= 1e-5


@pytest.mark.parametrize("scheme", SCHEMES)
def test_likelihoods_are_sums_by_hand(speaker: Halves, item: EncodedItem, scheme: str) -> None:
    language = speaker.language
    scores = language.log_likelihoods(item, PROMPTS, OPTIONS, scheme=scheme)
    assert [len(row) for row in scores] == [len(row) for row in OPTIONS]
    for prompt, options, row in zip(PROMPTS, OPTIONS, scores):
        for option, score in zip(options, row):
            ids = language.tokenizer(option, add_special_tokens=False).input_ids
            likely = one_forward(language, item, prompt, ids, scheme)
            assert score.tokens == len(ids)
            assert score.total == pytest.approx(
                sum(float(likely[i, token]) for i, token in enumerate(ids)), abs=2e-5, rel=1e-6
            )
            assert score.greedy == (likely.argmax(dim=-1).tolist() == ids)


def test_an_option_is_greedy_where_the_answer_begins_with_it() -> None:
    nano = speaker_of("nano")
    answer = nano.language.ask(None, ["Is there a cat?"])[0]
    assert answer.text == "I only know rendered shapes."
    options = ["the cat sits", "I only", answer.text, "I only know cats", answer.text, answer.text + "?"]
    scores = nano.language.log_likelihoods(None, ["Is there a cat?"], [options])[0]
    assert [score.greedy for score in scores] == [False, True, True, False, True, False]
    # Rows of one product: on processors with wider vectors, where a row stands in it decides how its sums round.
    assert scores[2] == replace(scores[4], total=pytest.approx(scores[4].total, abs=1e-5))
    assert scores[2].tokens == len(answer.token_ids) - 1
    assert scores[1].total >= scores[2].total > -1 > scores[3].total


@pytest.mark.parametrize("kind", ["video", "image"])
@pytest.mark.parametrize("scheme", ["hf", "original"])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_vl"])
def test_all_tokens_give_what_the_whole_model_says_to_the_pixels(family: str, kind: str, scheme: str) -> None:
    """Nothing of ours on the other side: transformers from pixels, with inputs that the test lays out."""
    speaker, info = speaker_of(family), make_info(kind)
    item, whole = encode_item(speaker.tower, info, seed=5), speaker.native
    media = [(kind, make_pixels(info, item.frame_size, 5), item.seconds_per_step)]
    inputs = native_inputs(whole, speaker.language.tokenizer, media)
    per_second = whole.config.vision_config.tokens_per_second if family == "qwen2_5_vl" else None
    extra = {"position_ids": original_positions(inputs, per_second)} if scheme == "original" else {}
    whole.model.rope_deltas = None
    with torch.no_grad():
        reference = torch.log_softmax(whole(**inputs, **extra, use_cache=False).logits[0, -1], dim=-1)
    found = speaker.language.distributions(item, [QUESTION, "hi"], [[9], [9, 9]], scheme=scheme)[0]
    assert float((found[0] - reference).abs().max()) <= 1e-5


@pytest.mark.usefixtures("endless")
def test_without_a_picture(speaker: Halves, some: EncodedItem) -> None:
    language = speaker.language
    blind = language.ask(None, PROMPTS, max_new_tokens=STEPS)
    assert without_time(blind) == without_time(one_by_one(language, None))
    assert {answer.visual_tokens for answer in blind} == {0}
    assert furthest(language, None) <= 1e-5
    seen = language.distributions(some, PROMPTS[:1], [[30]])[0]
    assert float((seen - language.distributions(None, PROMPTS[:1], [[30]])[0]).abs().max()) > 1e-3


@pytest.mark.usefixtures("endless")
def test_a_system_message_is_part_of_the_trunk(speaker: Halves, some: EncodedItem) -> None:
    system = "be short and look at the cat"
    answers = speaker.language.ask(some, PROMPTS, max_new_tokens=4, system=system)
    for prompt, answer in zip(PROMPTS, answers):
        alone = speaker.language.generate([request_of(some, prompt, system)], max_new_tokens=4)
        assert without_time([answer]) == without_time(alone)


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("budget", [1, 80, 150, 100_000])
def test_results_do_not_depend_on_the_batch(
    speaker: Halves, some: EncodedItem, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    language = speaker.language
    answers = without_time(language.ask(some, PROMPTS, max_new_tokens=STEPS))
    scores = language.log_likelihoods(some, PROMPTS, OPTIONS)
    monkeypatch.setattr(language, "max_batch_tokens", budget)
    assert without_time(language.ask(some, PROMPTS, max_new_tokens=STEPS)) == answers
    backwards = language.ask(some, PROMPTS[::-1], max_new_tokens=STEPS)
    assert without_time(backwards[::-1]) == answers
    assert without_time(language.ask(some, PROMPTS[2:3], max_new_tokens=STEPS)) == answers[2:3]
    for row, found in zip(scores, language.log_likelihoods(some, PROMPTS, OPTIONS)):
        assert [score.total for score in found] == pytest.approx([score.total for score in row], abs=2e-5, rel=1e-6)
    assert furthest(language, some) <= 1e-5
