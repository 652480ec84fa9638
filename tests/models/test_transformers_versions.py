"""What models of transformers give where it has changed over the versions that tokcli runs with."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tokcli.models.idefics3 import SmolVLM
from tokcli.models.llava_next import LlavaNextVideo

FRAMES, TOKENS, WIDTH = 3, 4, 5


@pytest.mark.parametrize(
    "given",
    [lambda features: torch.split(features, FRAMES), lambda features: features.flatten(0, 1)[None]],
    ids=["5.18", "5.24"],
)
def test_pooled_frames_of_a_video(given: Callable[[torch.Tensor], Any]) -> None:
    features = torch.arange(FRAMES * TOKENS * WIDTH).view(FRAMES, TOKENS, WIDTH)

    def get_video_features(planes: torch.Tensor, return_dict: bool) -> SimpleNamespace:
        assert planes.shape[:2] == (1, FRAMES) and return_dict
        return SimpleNamespace(pooler_output=given(features))

    model = SimpleNamespace(model=SimpleNamespace(get_video_features=get_video_features))
    assert torch.equal(LlavaNextVideo().pooled_features(model, torch.zeros(FRAMES, 3, 2, 2)), features)


def test_tokens_of_stills_go_into_a_prompt_block_by_block() -> None:
    """As SmolVLM 5.18 does it: a tensor (blocks, tokens of a block, D), and each prompt has whole blocks."""
    items = [
        SimpleNamespace(views=[None], kept=SimpleNamespace(tokens=torch.full((count, WIDTH), float(count))))
        for count in (3, 4)
    ]
    blocks = SmolVLM().encoder_outputs(items, torch.zeros(1))["image"].pooler_output.to(torch.float32)
    visual = torch.tensor([[0, 1, 1, 0, 1, 0], [1, 1, 1, 1, 0, 0]], dtype=torch.bool)
    assert all(visual.sum(dim=1) % blocks.shape[1] == 0)
    first = torch.nn.functional.pad((visual.sum(dim=1) // blocks.shape[1]).cumsum(dim=0), (1, 0))[:-1, None]
    place = visual.cumsum(dim=1) - 1
    block, inside = (first + place // blocks.shape[1])[visual], (place % blocks.shape[1])[visual]
    assert blocks[block, inside].mean(dim=1).tolist() == [3.0] * 3 + [4.0] * 4
