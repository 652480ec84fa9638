"""Many prompts about one item, where layers attend to a window and pictures see themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from asked import PROMPTS, replies_for
from family_tiny import open_family
from gemma_tiny import GEMMA3, WINDOW
from native_reference import keep_rows
from tiny_checkpoints import Halves, encode_item, make_info

from tokcli.models import Request
from tokcli.types import EncodedItem


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Halves:
    return open_family(tmp_path_factory.mktemp("gemma3"), GEMMA3)


@pytest.fixture(params=["video", "pruned", "nothing kept", "none"])
def item(request: pytest.FixtureRequest, gemma: Halves) -> EncodedItem | None:
    video = encode_item(gemma.tower, make_info(frames=5))
    shares = {"video": 1.0, "pruned": 0.4, "nothing kept": 0.0}
    if request.param not in shares:
        return None
    return keep_rows(video, np.flatnonzero(np.random.default_rng(1).random(len(video.kept)) < shares[request.param]))


def test_replies_are_as_likely_as_in_one_forward(gemma: Halves, item: EncodedItem | None) -> None:
    """The model itself, all ids of one prompt and reply at once, no KV cache, masks of its own making."""
    replies = replies_for(gemma.language)
    found = gemma.language.distributions(item, PROMPTS, replies)
    longest = 0
    for prompt, reply, own in zip(PROMPTS, replies, found):
        inputs = gemma.language.prepare([Request([] if item is None else [item], prompt)])
        length = inputs["input_ids"].shape[1]
        longest = max(longest, length)
        after = torch.tensor([reply], dtype=torch.long)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], after], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        inputs["token_type_ids"] = torch.cat([inputs["token_type_ids"], torch.zeros_like(after)], dim=1)
        positions = inputs["position_ids"]
        steps = positions[:, -1:] + torch.arange(1, len(reply) + 1)
        inputs["position_ids"] = torch.cat([positions, steps], dim=1)
        with torch.no_grad():
            logits = gemma.language.model(**inputs, use_cache=False).logits[0]
        expected = torch.log_softmax(logits[length - 1 : length - 1 + len(reply)].float(), dim=-1)
        assert own.shape == expected.shape
        if reply:
            assert float((own - expected).abs().max()) <= 1e-5
    assert longest > 2 * WINDOW


def test_the_window_shows(gemma: Halves, monkeypatch: pytest.MonkeyPatch) -> None:
    item = encode_item(gemma.tower, make_info(frames=5))
    replies = replies_for(gemma.language)
    before = gemma.language.distributions(item, PROMPTS, replies)
    monkeypatch.setattr("tokcli.models.branching._window", lambda _model: 10_000)
    after = gemma.language.distributions(item, PROMPTS, replies)
    assert float((before[0] - after[0]).abs().max()) > 1e-4
