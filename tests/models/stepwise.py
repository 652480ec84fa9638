"""Generating step by step: requests of one ragged batch, and what each step must equal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from native_reference import keep_rows
from tiny_checkpoints import encode_item, make_info

from tokcli.models import LanguageModel, Request, VisionTower
from tokcli.types import EncodedItem

STEPS = 12


def some_rows(item: EncodedItem, share: float, seed: int) -> EncodedItem:
    """About that share of the item's tokens."""
    mask = np.random.default_rng(seed).random(len(item.kept)) < share
    return keep_rows(item, np.flatnonzero(mask).tolist())


def ragged_requests(tower: VisionTower) -> list[Request]:
    """Videos and stills, other shares kept, other questions, several items, none at all."""
    video = encode_item(tower, make_info("video"), seed=1, name="video")
    image = encode_item(tower, make_info("image", height=60, width=60), seed=2, name="image")
    return [
        Request([some_rows(video, 0.3, 0)], "what happens ?"),
        Request([image], "a cat sits on the mat and looks at the other cat", system="be short"),
        Request([image, some_rows(video, 0.6, 1), image], "what happens in this video ?"),
        Request([keep_rows(video, [])], "nothing was kept"),
        Request([], "no item at all"),
    ]


def cached_steps(language: LanguageModel, requests: list[Request]) -> Any:
    """The language half's own generation with a KV cache, and the logits (requests, vocabulary) of each step."""
    return language.model.generate(
        **language.prepare(requests),
        max_new_tokens=STEPS,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )


@torch.no_grad()
def uncached(language: LanguageModel, request: Request, new: list[int]) -> torch.Tensor:
    """Logits of the last token, computed anew for the whole sequence: prompt, then what was generated."""
    inputs = language.prepare([request])
    positions = inputs["position_ids"]  # (1, S), or (3, 1, S) where they are of time, height and width
    inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([new], dtype=torch.long)], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    after = positions.max() + 1 + torch.arange(len(new))
    inputs["position_ids"] = torch.cat([positions, after.expand(*positions.shape[:-1], -1)], dim=-1)
    logits: torch.Tensor = language.model(**inputs, use_cache=False).logits[0, -1]
    return logits


def check_each_step(language: LanguageModel, requests: Iterable[Request]) -> None:
    """Each step with a KV cache is the step without one."""
    for request in requests:
        output = cached_steps(language, [request])
        new = output.sequences[0, -STEPS:].tolist()
        for step in range(STEPS):
            reference = uncached(language, request, new[:step])
            assert float((output.logits[step][0] - reference).abs().max()) <= 5e-6
            assert int(reference.argmax()) == new[step]


def check_ragged_batch(language: LanguageModel, requests: list[Request]) -> None:
    """A batch is its rows alone."""
    together = cached_steps(language, requests)
    for row, request in enumerate(requests):
        alone = cached_steps(language, [request])
        assert together.sequences[row, -STEPS:].tolist() == alone.sequences[0, -STEPS:].tolist()
        for step in range(STEPS):
            assert float((together.logits[step][row] - alone.logits[step][0]).abs().max()) <= 5e-6
