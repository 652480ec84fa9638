"""What models of transformers give where it has changed over the versions that tokcli runs with."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

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
